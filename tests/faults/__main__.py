"""``make faults``: run the matrix and write docs/reliability.md."""

import json
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import App, Parameter

from faults.matrix import Row, all_rows
from faults.report import write_report
from faults.runner import Result, percentile, run_row
from integration.interruptible import run_to_the_end, say
from k2.local.background import BackgroundStack
from k2.local.stack import Stack

REPORT = Path(__file__).parents[2] / "docs" / "reliability.md"

app = App(name="faults", help="The fault matrix, on a real Kafka and real sockets.")


@app.default
def run(
    *,
    rows: Annotated[list[str] | None, Parameter(consume_multiple=True, negative="")] = None,
    list_rows: Annotated[bool, Parameter(name="--list", negative="")] = False,
    quick: Annotated[bool, Parameter(negative="")] = False,
    json_output: Annotated[bool, Parameter(name="--json", negative="")] = False,
    keep: Annotated[bool, Parameter(negative="")] = False,
    report: Path | None = None,
) -> int:
    """Run the rows one after another; exit 1 if any broke the promise or its own bound.

    Args:
        rows: Only these, e.g. ``--rows reset zombie``; the document is not written then.
        list_rows: Say which rows there are.
        quick: Only the cheap ones, with fewer trades.
        json_output: Print one JSON object a row.
        keep: Keep the logs of rows that went well too.
        report: Where the document goes, when all rows are run: ``docs/reliability.md``.
    """
    known = all_rows()
    if list_rows:
        _list(known)
        return 0
    chosen = _chosen(known, rows, quick=quick)
    results: list[Result] = []
    with (
        tempfile.TemporaryDirectory(prefix="k2-faults-") as state_dir,
        BackgroundStack(
            Stack(state_dir=Path(state_dir), kafka_port=None, registry_port=None)
        ) as stack,
    ):
        for number, row in enumerate(chosen, 1):
            if not json_output:
                say(f"[{number}/{len(chosen)}] {row.name} ...")
            result = run_row(row, stack, keep=keep)
            results.append(result)
            say(_as_json(result) if json_output else _as_text(result))
    if rows is None and not quick:
        write_report(report or REPORT, results)
        say(f"written: {report or REPORT}", stream=sys.stderr)
    elif report is not None:
        write_report(report, results)
    broken = [result.row.name for result in results if not result.kept]
    if broken:
        say(f"broken: {', '.join(broken)}", stream=sys.stderr)
    return 1 if broken else 0


def _chosen(known: dict[str, Row], rows: list[str] | None, *, quick: bool) -> list[Row]:
    if unknown := [name for name in rows or () if name not in known]:
        say(f"no such row: {', '.join(unknown)} (see --list)", stream=sys.stderr)
        raise SystemExit(2)
    return [
        row
        for row in known.values()
        if (rows is None or row.name in rows) and (row.quick or not quick)
    ]


def _list(known: dict[str, Row]) -> None:
    for row in known.values():
        say(f"{row.name:32} {'quick ' if row.quick else '      '}{row.how}")


def _as_text(result: Result) -> str:
    verdict = result.verdict
    wrong = (verdict.lost, verdict.doubled, verdict.out_of_order, verdict.different)
    parts = [
        "   ok " if result.kept else "   BROKEN ",
        f"{verdict.records} records, {verdict.healed} healed",
        f"lost/doubled/disordered/different {'/'.join(map(str, wrong))}",
        f"declared {verdict.declared}, repaired {verdict.repaired}",
        f"heal {_seconds(result.heal_s)}, pause {_seconds(result.pause_s)}",
        f"REST {result.rest_calls}, RSS {result.rss_peak_mb:.0f} MB",
        f"machine {result.machine_busy_percent:.0f} %, took {result.took_s:.0f} s",
    ]
    lines = [", ".join(parts)]
    if pauses := result.moment_pauses_s:
        p50_s, p99_s = percentile(pauses, 0.5), percentile(pauses, 0.99)
        lines.append(f"      pauses of {len(pauses)} moments: p50 {p50_s:.3f} s, p99 {p99_s:.3f} s")
    lines += [f"      problem: {problem[:600]}" for problem in result.problems]
    lines += [f"      {note}" for note in result.notes]
    lines += [f"      {name} = {value:.3g}" for name, value in result.figures.items()]
    return "\n".join(lines)


def _seconds(value: float | None) -> str:
    return "?" if value is None else f"{value:.2f} s"


def _as_json(result: Result) -> str:
    body = msgspec.to_builtins(result.verdict) | {
        "row": result.row.name,
        "kept": result.kept,
        "problems": result.problems,
        "notes": result.notes,
        "figures": result.figures,
        "heal_s": result.heal_s,
        "pause_s": result.pause_s,
        "moment_pauses_s": result.moment_pauses_s,
        "rest_calls": result.rest_calls,
        "rss_peak_mb": result.rss_peak_mb,
        "machine_busy_percent": result.machine_busy_percent,
        "took_s": result.took_s,
    }
    return json.dumps(body)


if __name__ == "__main__":
    run_to_the_end(app)
