"""Runs seeds of the simulation: ``make simulate SEEDS=100000``, ``make simulate SEED=123``."""

import argparse
import asyncio
import gc
import multiprocessing
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, MutableMapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, TextIO

import structlog

from simulation.seed_run import Outcome, run_seed
from simulation.world.node import NODE

SEED_MAX_S = 120.0
"""Real time a seed may take; the slowest of thousands take two seconds."""

SEEDS_AT_ONCE = 10
"""Garbage is collected after so many."""

TELL_EVERY_S = 5.0
FINDINGS_SHOWN = 6


class SeedHangsError(KeyboardInterrupt):
    """A seed computes without end. No ``Exception``: asyncio would keep it in a task."""


@dataclass
class Total:
    """What many seeds came to."""

    seeds: int = 0
    failed: list[Outcome] = field(default_factory=list)
    trades: int = 0
    least: Outcome | None = None
    """The seed with the fewest trades."""
    slowest: Outcome | None = None
    struck: Counter[str] = field(default_factory=Counter)
    met: Counter[str] = field(default_factory=Counter)
    past: int = 0
    declared: int = 0

    def add(self, outcome: Outcome) -> None:
        """Count one seed in."""
        self.seeds += 1
        self.trades += outcome.trades
        self.past += outcome.past
        self.declared += outcome.declared
        self.struck.update(outcome.struck)
        self.met.update(outcome.met)
        if outcome.findings:
            self.failed.append(outcome)
        if self.least is None or outcome.trades < self.least.trades:
            self.least = outcome
        if self.slowest is None or outcome.took_s > self.slowest.took_s:
            self.slowest = outcome


def run_seeds(seeds: Iterable[int], *, processes: int) -> Iterator[Outcome]:
    """Run seeds in processes of their own; yield what each came to, as they finish."""
    left, under_way = iter(seeds), set[Future[list[Outcome]]]()
    # Spawned, not forked: a fork would inherit whatever threads the caller runs.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, mp_context=context, initializer=_prepare)
    try:
        while True:
            while len(under_way) < 2 * processes and (some := list(islice(left, SEEDS_AT_ONCE))):
                under_way.add(pool.submit(_run_some, some))
            if not under_way:
                return
            done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
            for future in done:
                yield from future.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for child in multiprocessing.active_children():
            child.terminate()


def quiet() -> None:
    """Drop all log lines, before they are made."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))


def told(outcome: Outcome) -> str:
    """Return what a failing seed showed, and how to see it again."""
    shown = outcome.findings[:FINDINGS_SHOWN]
    more = len(outcome.findings) - len(shown)
    lines = [f"seed {outcome.seed}:", *(f"  {finding}" for finding in shown)]
    lines += [f"  and {more} more"] if more else []
    return "\n".join([*lines, f"  again, with its log: make simulate SEED={outcome.seed}"])


def main(arguments: list[str] | None = None) -> int:
    """Run what was asked for; 1 if any seed shows anything wrong."""
    parser = argparse.ArgumentParser(prog="simulation.run", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1_000, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seed", type=int, help="this one alone")
    parser.add_argument("--log", action="store_true", help="with --seed: its log, at INFO")
    asked = parser.parse_args(arguments)
    try:
        if asked.seed is not None:
            return _run_one(asked.seed, log=asked.log)
        return _run_many(range(asked.first, asked.first + asked.seeds), processes=asked.processes)
    except KeyboardInterrupt:
        return 130


def _run_one(seed: int, *, log: bool) -> int:
    if log:
        structlog.configure(
            wrapper_class=structlog.make_filtering_bound_logger(20),
            processors=[
                _in_virtual_time,
                structlog.processors.add_log_level,
                structlog.dev.ConsoleRenderer(colors=sys.stdout.isatty(), pad_event_to=0),
            ],
        )
    else:
        quiet()
    outcome = run_seed(seed)
    _say(_summary(_of([outcome])))
    _say(told(outcome) if outcome.findings else f"seed {seed}: nothing wrong")
    return 1 if outcome.findings else 0


def _run_many(seeds: range, *, processes: int) -> int:
    began_s = told_s = time.monotonic()
    total = Total()
    try:
        for outcome in run_seeds(seeds, processes=processes):
            total.add(outcome)
            if outcome.findings:
                _say(told(outcome))
            now_s = time.monotonic()
            if now_s - told_s >= TELL_EVERY_S:
                told_s = now_s
                rate = total.seeds / (now_s - began_s)
                _say(
                    f"{total.seeds:,} of {len(seeds):,} seeds, {len(total.failed)} failed, "
                    f"{rate:.1f} seeds/s",
                    to=sys.stderr,
                )
    finally:
        if total.seeds:
            took_s = time.monotonic() - began_s
            _say(_summary(total))
            _say(
                f"{total.seeds:,} seeds, {len(total.failed)} failed, in {took_s:.1f} s: "
                f"{total.seeds / took_s:.1f} seeds/s in {processes} processes"
            )
    return 1 if total.failed else 0


def _of(outcomes: Iterable[Outcome]) -> Total:
    total = Total()
    for outcome in outcomes:
        total.add(outcome)
    return total


def _summary(total: Total) -> str:
    lines = ["struck: " + _counts(total.struck), "met: " + _counts(total.met)]
    if total.least is not None and total.slowest is not None:
        lines.append(
            f"{total.trades:,} trades, fewest {total.least.trades} (seed {total.least.seed}), "
            f"{total.past:,} of the past, {total.declared:,} ids declared; "
            f"slowest seed {total.slowest.seed}: {total.slowest.took_s:.2f} s"
        )
    return "\n".join(lines)


def _counts(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items())) or "nothing"


def _prepare() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends us
    signal.signal(signal.SIGALRM, _hangs)
    quiet()
    gc.freeze()


def _run_some(seeds: Sequence[int]) -> list[Outcome]:
    outcomes = [_run_bounded(seed) for seed in seeds]
    gc.collect()
    return outcomes


def _run_bounded(seed: int) -> Outcome:
    signal.setitimer(signal.ITIMER_REAL, SEED_MAX_S)
    try:
        outcome = run_seed(seed)
    except SeedHangsError:
        outcome = Outcome(seed, [f"did not end within {SEED_MAX_S:.0f} s of real time"])
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return outcome


def _hangs(*_: object) -> None:
    raise SeedHangsError


def _in_virtual_time(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    node = NODE.get()
    try:
        event["timestamp"] = f"{asyncio.get_running_loop().time():10.4f}"
    except RuntimeError:
        event["timestamp"] = "         -"
    event["logger"] = "world" if node is None else node.name
    return event


def _say(text: str, *, to: TextIO | None = None) -> None:
    print(text, file=to or sys.stdout, flush=True)


if __name__ == "__main__":
    sys.exit(main())
