"""The document: what was measured in one run, by this command, and nothing else."""

import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import psutil  # type: ignore[import-untyped]  # ships no type information
from confluent_kafka import libversion

from faults.runner import Result, percentile
from k2 import __version__
from k2.ingestion.ring import RING_MAX
from k2.local.jars import read_lock

RSS_KAFKA_DOWN_MAX_MB = 200
"""The stated bound: what the capture may use once its ring is full."""

INTRODUCTION = """\
Written by `make faults`; not edited by hand. Every row runs on a real Kafka, with real sockets
through the fault proxy and the exchange in a box. It ends when the tape has reached the exchange's
newest ids, and is compared with the exchange's ledger, record by record, by a reader that shares no
code with k2."""

SHARED = """\
Everything shares these cores: exchange, proxies, Kafka, registry and capture. `busy` says how busy
they were during the row, whoever used them: at over 90 % times are worse than they need be."""

COLUMNS = """\
`load`: symbols x trades per second, and instances. `lost` to `different`: ids, against the ledger,
up to the newest. `declared`: ids told to be missing. `heal`: from the end of the fault until the
tape held what the exchange's newest was then, and the last trade was written that was more than 1 s
old: from then on the tape is live. `pause`: longest time without a record in any
partition, from the beginning of the fault on. `by REST`: trades that came by REST from then on,
and the calls."""

HEAD = (
    "| row | load | lost, doubled, disordered, different | declared | heal s | pause s "
    "| by REST | busy % | ok |"
)


class Figure(NamedTuple):
    """One figure of those to reach."""

    what: str
    at_most: str
    found: str
    reached: bool | None
    """None where there is nothing to reach, or it was not measured."""


def write_report(path: Path, results: Sequence[Result]) -> None:
    """Write what was measured."""
    text = "\n".join(_lines(results)) + "\n"
    path.write_text(text, encoding="utf-8")


def _lines(results: Sequence[Result]) -> Iterator[str]:
    broken = [result.row.name for result in results if not result.kept]
    yield "# Reliability: the fault matrix"
    yield ""
    yield INTRODUCTION
    yield ""
    yield from _machine(results)
    yield ""
    if broken:
        kept = len(results) - len(broken)
        yield f"**{kept} of {len(results)} rows kept their bounds; not: {', '.join(broken)}.**"
    else:
        yield f"All {len(results)} rows kept the promise and their bounds."
    yield ""
    yield "## Figures to reach"
    yield ""
    yield "| what | at most | measured | reached |"
    yield "|---|---|---|---|"
    for figure in figures(results):
        reached = {None: "", True: "yes", False: "**no**"}[figure.reached]
        yield f"| {figure.what} | {figure.at_most} | {figure.found} | {reached} |"
    yield ""
    yield from _rows(results)
    yield from _explained(results)


def _machine(results: Sequence[Result]) -> Iterator[str]:
    kafka = next(jar.version for jar in read_lock().jars if jar.name.startswith("kafka_"))
    memory_gb = psutil.virtual_memory().total / 1e9
    took_min = sum(result.took_s for result in results) / 60
    yield (
        f"{datetime.now(UTC):%Y-%m-%d}, {psutil.cpu_count()} cores, {memory_gb:.0f} GB, "
        f"{platform.system()}, Python {sys.version.split()[0]}, k2 {__version__}, Kafka {kafka}, "
        f"confluent-kafka {version('confluent-kafka')} (librdkafka {libversion()[0]}); "
        f"{took_min:.0f} min."
    )
    yield SHARED


def figures(results: Sequence[Result]) -> list[Figure]:
    """Return the issue's figures, as far as these rows measured them."""
    by_name = {result.row.name: result for result in results}
    verdicts = [result.verdict for result in results]
    sums = [
        sum(v.lost for v in verdicts),
        sum(v.doubled for v in verdicts),
        sum(v.out_of_order for v in verdicts),
    ]
    found = [
        Figure(
            f"lost, doubled, out of order, over {len(results)} rows and "
            f"{sum(v.records for v in verdicts):,} records",
            "0, 0, 0",
            ", ".join(map(str, sums)),
            not any(sums),
        )
    ]
    for name, what in (("one-leg-dies", "one leg dies"), ("rotation", "rotation")):
        if one := by_name.get(name):
            found.append(
                Figure(
                    f"{what}: REST calls, trades healed",
                    "0, 0",
                    f"{one.rest_calls}, {one.verdict.healed}",
                    one.rest_calls == one.verdict.healed == 0,
                )
            )
    found += _pauses(by_name)
    for name, what, most_s in (
        ("restart-without-standby", "process restarted, no standby: to live", 5.0),
        ("both-legs-cut-60-s", "both legs cut 60 s: live after reconnecting", 5.0),
        ("network-cut-60-s", "both legs and REST cut 60 s: live after reconnecting", 5.0),
    ):
        if (one := by_name.get(name)) and one.heal_s is not None:
            found.append(Figure(what, f"{most_s:g} s", f"{one.heal_s:.2f} s", one.heal_s <= most_s))
    return [*found, *_costs(by_name)]


def _pauses(by_name: Mapping[str, Result]) -> Iterator[Figure]:
    planned = by_name.get("planned-hand-overs")
    if planned and (pauses := planned.moment_pauses_s):
        p50_s, p99_s = percentile(pauses, 0.5), percentile(pauses, 0.99)
        yield Figure(
            f"planned take-over, pause of the tape, p99 of {len(pauses)}",
            "0.25 s",
            f"p50 {p50_s:.3f} s, p99 {p99_s:.3f} s",
            p99_s <= 0.25,
        )
    killed = by_name.get("writer-killed-with-standby")
    if killed and killed.pause_s is not None:
        yield Figure(
            "writer SIGKILLed, a second instance: pause of the tape",
            "3.5 s",
            f"{killed.pause_s:.2f} s",
            killed.pause_s <= 3.5,
        )


def _costs(by_name: Mapping[str, Result]) -> Iterator[Figure]:
    if (steady := by_name.get("steady")) and "rss_mb" in steady.figures:
        rss_mb = steady.figures["rss_mb"]
        yield Figure("capture memory, steady", "100 MB", f"{rss_mb:.0f} MB", rss_mb <= 100)
    if down := by_name.get("broker-down-2-min"):
        found = f"{down.rss_peak_mb:.0f} MB"
        yield Figure(
            "capture memory, Kafka down 2 min",
            f"{RSS_KAFKA_DOWN_MAX_MB} MB ({RING_MAX:,} trades, then none)",
            found,
            down.rss_peak_mb <= RSS_KAFKA_DOWN_MAX_MB,
        )
    one, two = by_name.get("steady-one-leg"), by_name.get("steady-two-instances")
    if one and two and one.figures and two.figures:
        ours, least = two.figures, one.figures
        memory = f"{ours['rss_mb']:.0f} over {least['rss_mb']:.0f} MB"
        cores = f"{ours['cores']:.2f} over {least['cores']:.2f} cores"
        what = "two instances with two legs, over one with one"
        yield Figure(what, "say it", f"{memory}, {cores}", None)


def _rows(results: Sequence[Result]) -> Iterator[str]:
    yield "## Rows"
    yield ""
    yield COLUMNS
    yield ""
    group = ""
    for result in results:
        if result.row.group != group:
            group = result.row.group
            yield f"### {group}"
            yield ""
            yield HEAD
            yield "|---|---|---|---|---|---|---|---|---|"
        yield _row(result)
        following = next((r for r in results[results.index(result) + 1 :]), None)
        if following is None or following.row.group != group:
            yield ""


def _row(result: Result) -> str:
    row, verdict = result.row, result.verdict
    found = f"{verdict.lost}, {verdict.doubled}, {verdict.out_of_order}, {verdict.different}"
    declared = f"{verdict.declared}"
    if verdict.repaired:
        declared += f", {verdict.repaired} repaired"
    return (
        f"| {row.name} | {row.symbols} x {row.rate:g}/s, {row.instances or 1} | {found} "
        f"| {declared} | {_seconds(result.heal_s)} | {_seconds(result.pause_s)} "
        f"| {verdict.healed}, {result.rest_calls} calls | {result.machine_busy_percent:.0f} "
        f"| {'yes' if result.kept else '**no**'} |"
    )


def _explained(results: Sequence[Result]) -> Iterator[str]:
    yield "## What each row does"
    yield ""
    for result in results:
        yield f"- **{result.row.name}**: {result.row.how}"
        notes = [note for note in result.notes if not note.startswith("logs:")]
        if notes:
            yield f"  Seen: {'; '.join(notes)}."
        for problem in result.problems:
            yield f"  **Not kept**: {problem}"


def _seconds(value: float | None) -> str:
    return "?" if value is None else f"{value:.2f}"
