"""Runs one row: start, trade, break, go on, stop, wait, compare."""

import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

from faults.bench import Bench
from faults.matrix import SYMBOLS, Row
from faults.tape import Verdict, judge, last_late_s, reached_s, read_tape, worst_pause_s
from k2.local.background import BackgroundStack

SETTLE_S = 2.0
SETTLE_STANDBY_S = 6.0
"""A standby that has heard everything for 5 s takes over without REST."""

GO_ON_S = 2.0
REACH_DEADLINE_S = 240.0
MOMENT_S = 2.0
"""How long after an instant its own pause is looked for."""

DELIBERATE_EXITS = (None, 0, -9)


@dataclass
class Result:
    """What one row came to."""

    row: Row
    verdict: Verdict = field(default_factory=Verdict)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)
    heal_s: float | None = None
    pause_s: float | None = None
    moment_pauses_s: list[float] = field(default_factory=list)
    rest_calls: int = 0
    rss_peak_mb: float = 0.0
    machine_busy_percent: float = 0.0
    took_s: float = 0.0

    @property
    def kept(self) -> bool:
        """Whether the promise and every bound of the row were kept."""
        return not self.problems


def run_row(row: Row, stack: BackgroundStack, *, keep: bool = False) -> Result:
    """Run a row; what goes wrong in it is part of the result."""
    began_s = time.monotonic()
    result = Result(row)
    path = Path(tempfile.mkdtemp(prefix=f"k2-faults-{row.name}-"))
    try:
        symbols = SYMBOLS[-1:] + SYMBOLS[: row.symbols - 1]
        prefix = f"f{uuid4().hex[:8]}"
        settings = _settings(row, path)
        with Bench(stack, path, prefix, symbols=symbols, settings=settings) as bench:
            try:
                _play(row, bench, result)
            except (AssertionError, OSError, ValueError, subprocess.TimeoutExpired) as exc:
                result.problems.append(str(exc) or "an assertion of the row failed")
            if bench.began_s:
                _compare(row, bench, result)
    finally:
        if keep or not result.kept:
            result.notes.append(f"logs: {path}")
        else:
            shutil.rmtree(path, ignore_errors=True)
    result.took_s = time.monotonic() - began_s
    return result


def _settings(row: Row, path: Path) -> dict[str, str]:
    settings = dict(row.settings)
    if "K2_DLQ_DIR" in settings:
        folder = path / settings["K2_DLQ_DIR"]
        folder.mkdir()
        settings["K2_DLQ_DIR"] = str(folder)
    if row.shards > 1:
        settings["K2_SHARDS"] = str(row.shards)
    return settings


def _play(row: Row, bench: Bench, result: Result) -> None:
    bench.start_exchange("--rate", f"{row.rate:g}", *row.exchange_flags, config=row.exchange_config)
    if row.instances:
        bench.start_instances(row.instances)
        bench.go_on(SETTLE_S if row.instances == 1 else SETTLE_STANDBY_S)
    row.act(bench)
    bench.until_reached(bench.newest_then, within_s=REACH_DEADLINE_S)
    bench.go_on(GO_ON_S)
    bench.until_written(within_s=REACH_DEADLINE_S)  # what the fault left behind heals while trading
    bench.stopped_s = time.time()
    bench.final = bench.freeze()
    bench.until_reached(bench.final, within_s=REACH_DEADLINE_S)
    result.rest_calls = bench.rest_calls
    for instance in bench.instances:
        code = instance.process.popen.poll() if instance.process.popen else None
        if code not in DELIBERATE_EXITS:
            result.problems.append(f"{instance.name} ended with {code}")
        elif code is None and (ended := instance.process.end()):
            result.problems.append(f"{instance.name} ended with {ended} at SIGTERM")


def _compare(row: Row, bench: Bench, result: Result) -> None:
    """Read the topic and the ledger, whatever came before."""
    newest = bench.final or bench.freeze()
    if not bench.final:
        result.problems.append("it did not reach the exchange's newest: the rest counts as lost")
    tape = read_tape(bench.stack.address.bootstrap, bench.room.prefix)
    verdict = judge(tape, bench.room.path / "exchange", newest, fault_began_s=bench.began_s)
    result.verdict = verdict
    result.problems += bench.problems
    result.notes += bench.notes
    result.figures |= bench.figures
    result.rss_peak_mb = bench.load.rss_peak_mb()
    result.machine_busy_percent = bench.load.machine_busy_percent()
    if bench.stopped_s:
        result.pause_s = worst_pause_s(tape, start_s=bench.began_s, end_s=bench.stopped_s)
        result.heal_s = max(
            0.0,
            reached_s(tape, bench.newest_then) - bench.ended_s,
            last_late_s(tape) - bench.ended_s,
        )
        result.moment_pauses_s = [
            worst_pause_s(tape, start_s=at_s, end_s=at_s + MOMENT_S) for at_s in bench.moments
        ]
    result.problems += _broken_bounds(row, result)
    result.problems += _crashes(bench)


def _broken_bounds(row: Row, result: Result) -> list[str]:
    verdict = result.verdict
    problems = []
    if not verdict.kept:
        problems.append(
            f"lost {verdict.lost}, doubled {verdict.doubled}, out of order "
            f"{verdict.out_of_order}, different {verdict.different}: {'; '.join(verdict.examples)}"
        )
    if verdict.declared != row.declared:
        problems.append(f"{verdict.declared} ids declared, not {row.declared}")
    if verdict.repaired != row.repaired:
        problems.append(f"{verdict.repaired} ids repaired, not {row.repaired}")
    p99_s = percentile(result.moment_pauses_s, 0.99) if result.moment_pauses_s else None
    for what, found, most in (
        ("trades healed by REST", verdict.healed, row.healed_max),
        ("REST calls", result.rest_calls, row.rest_calls_max),
        ("s of pause", result.pause_s, row.pause_max_s),
        ("s to heal", result.heal_s, row.heal_max_s),
        ("s of pause (p99)", p99_s, row.moment_pause_p99_max_s),
    ):
        if found is not None and most is not None and found > most:
            problems.append(f"{found:.3g} {what}, at most {most:g}")
    return problems


def _crashes(bench: Bench) -> list[str]:
    """Return who said more than it may: a traceback is a bug, whatever the tape says."""
    return [
        f"{instance.name} left a traceback in its log"
        for instance in bench.instances
        if "Traceback" in instance.process.log()
    ]


def percentile(values: list[float], share: float) -> float:
    """Return the value that so many of the values do not exceed (nearest rank)."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, int(share * len(ranked)))]
