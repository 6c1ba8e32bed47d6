"""One seed: its world, the shipped capture in it, whatever strikes, and what came of it."""

import gc
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from k2.ingestion.capture import Capture
from k2.ingestion.capture_figures import broken_accounts
from k2.ingestion.supervision import ExitCode
from k2.kafka.partitioning import shard_of
from k2.kafka.position import BackfillRequest, encode_request, request_key
from k2.observability import metrics
from simulation.capture_node import capture_main, limited, sim_settings
from simulation.variation import Variation, Wish, variation_of
from simulation.world.checker import backfills, is_caught_up, judge
from simulation.world.fault_kinds import FaultKind
from simulation.world.faults import EVERY_MAX_S, EVERY_MIN_S, FaultPlan
from simulation.world.world import Exit, World, simulated_world

CALM_BEFORE_S = 5.0
CALM_AFTER_S = 20.0
NEWBORN_AFTER_S = 10.0

_COUNTERS = {
    "rotations": metrics.rotations,
    "reconnections": metrics.reconnections,
    "healed": metrics.healed,
    "let go": metrics.let_go,
    "declared": metrics.gaps_declared,
    "repaired": metrics.repaired,
    "backfilled": metrics.backfilled,
}

_ENDING = {
    FaultKind.CRASH,
    FaultKind.CRASH_IN_COMMIT,
    FaultKind.TERMINATE,
    FaultKind.ALL_AT_ONCE,
}


@dataclass
class Outcome:
    """What one seed came to."""

    seed: int
    findings: list[str] = field(default_factory=list)
    trades: int = 0
    """On all tapes."""
    past: int = 0
    declared: int = 0
    struck: Counter[str] = field(default_factory=Counter)
    met: Counter[str] = field(default_factory=Counter)
    """What the captures went through: terms served, rotations, trades spilled and let go."""
    took_s: float = 0.0
    """Real seconds."""


def run_seed(
    seed: int,
    *,
    variation: Variation | None = None,
    only: tuple[FaultKind, ...] | None = None,
    every_s: tuple[float, float] = (EVERY_MIN_S, EVERY_MAX_S),
) -> Outcome:
    """Run one seed. ``variation`` and ``only`` (kinds of fault) replace what it would draw."""
    began_s = time.perf_counter()
    outcome = Outcome(seed)
    variation = variation or variation_of(seed)
    collecting = gc.isenabled()
    # A collection in mid-run would run the dead processes' `finally` blocks at a random moment.
    gc.disable()
    try:
        with (
            limited(variation.limits),
            simulated_world(
                seed, rates_per_s=variation.rates_per_s, shards=variation.shards
            ) as world,
        ):
            _run(world, variation, FaultPlan(world, only=only, every_s=every_s), outcome)
    except AssertionError as exc:  # a deadlock, a livelock, or what the world says is impossible
        outcome.findings.append(f"{type(exc).__name__}: {exc}")
    finally:
        if collecting:
            gc.enable()
    outcome.took_s = time.perf_counter() - began_s
    return outcome


def _run(world: World, variation: Variation, plan: FaultPlan, outcome: Outcome) -> None:
    captures: list[Capture] = []
    before = _met()
    for number, role in enumerate(variation.roles):
        settings = sim_settings(list(variation.rates_per_s), role=role, **variation.settings)
        main = capture_main(
            world,
            settings,
            limits=variation.limits,
            made=lambda _, capture: captures.append(capture),
        )
        instance = world.add_instance(f"instance-{number + 1}", main)
        instance.start_after(variation.start_s[number])
    for number, wish in enumerate(variation.wishes):
        world.loop.call_world(wish.at_s, _ask_for_past, world, wish, f"wish-{number}")
    world.exchange.open_with(variation.history, newborn_after_s=NEWBORN_AFTER_S)
    world.run(for_s=CALM_BEFORE_S)
    plan.begin()
    world.run(for_s=variation.faults_for_s)
    plan.end()
    world.run(for_s=CALM_AFTER_S)
    world.exchange.halt()
    settled = world.run_until(
        lambda: is_caught_up(world) and not backfills(world),
        within_s=variation.catch_up_within_s,
        every_s=10,
    )
    verdict = judge(world)
    outcome.trades, outcome.past = verdict.total, verdict.past
    outcome.declared = sum(verdict.declared.values())
    outcome.struck.update({kind.value: count for kind, count in plan.struck.items()})
    outcome.findings += verdict.violations
    outcome.findings += world.loop.complaints
    outcome.findings += [
        f"the account of {hop} does not balance"
        for capture in captures
        for hop in broken_accounts(capture)
    ]
    if not settled:
        outcome.findings.append(f"not caught up: behind {verdict.behind}, {backfills(world)}")
    outcome.findings += _unasked_ends(world)
    outcome.findings += _misbegun(world, variation, plan, verdict.begins)
    if world.exchange.too_many_frames or world.exchange.too_many_connects:
        outcome.findings.append("the exchange's limits were exceeded")
    outcome.met.update({name: count - before[name] for name, count in _met().items()})
    outcome.met["terms"] = sum(shard.takeovers for capture in captures for shard in capture.shards)


def _met() -> Counter[str]:
    """Return the product's own counters that tell which of its paths were taken."""
    return Counter({name: round(counter.total) for name, counter in _COUNTERS.items()})


def _ask_for_past(world: World, wish: Wish, request_id: str) -> None:
    """Do what ``k2 backfill`` does."""
    market, topic = world.exchange.markets[wish.symbol], world.topics.positions
    from_id = market.first_id + max(0, wish.history - wish.ids)
    request = BackfillRequest(wish.symbol, from_id, request_id)
    shard = shard_of(wish.symbol, partitions=world.kafka.partitions_of(topic))
    record = world.kafka.record(None, request_key(request_id), encode_request(request))
    world.kafka.when_up(lambda: world.kafka.logs[topic, shard].append([record], None))


def _unasked_ends(world: World) -> list[str]:
    """Return the ends of processes that should have gone on."""
    return [
        f"{instance.name} ended at {end.at_s:.1f} s: {_told(end)}"
        for instance in world.instances
        for end in instance.exits
        if end.error is not None
        or not end.asked
        or end.result not in (ExitCode.CLEAN, ExitCode.DRAINED_INCOMPLETELY)
    ]


def _told(end: Exit) -> str:
    error = end.error
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"exit {end.result}" if error is None else repr(error)


def _misbegun(
    world: World, variation: Variation, plan: FaultPlan, begins: Mapping[str, int]
) -> list[str]:
    """A process that was there all the time has a newborn symbol's very first trade."""
    # Where REST lacks the first rows its word for the first id is another one.
    if len(variation.roles) > 1 or plan.struck.keys() & {*_ENDING, FaultKind.ROWS_MISSING}:
        return []
    return [
        f"{symbol}: its tape begins at {begins.get(symbol)}, it was born with {market.first_id}"
        for symbol, market in world.exchange.markets.items()
        if not variation.history[symbol] and market.rows and begins.get(symbol) != market.first_id
    ]
