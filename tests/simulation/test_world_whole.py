"""The world as a whole, with a toy in the product's place."""

from collections.abc import Collection

import pytest

from simulation.toy_capture import Guards, Toy
from simulation.world.checker import Verdict, is_caught_up, judge
from simulation.world.fault_kinds import FaultKind
from simulation.world.faults import FaultPlan
from simulation.world.world import Process, simulated_world

RATES = {"BTCUSDT": 3.0, "ETHUSDT": 1.0, "BNBUSDT": 0.3}


class Run:
    """One seed."""

    def __init__(
        self,
        seed: int,
        *,
        guards: Guards | None = None,
        only: Collection[FaultKind] | None = None,
        every_s: tuple[float, float] = (8, 60),
    ) -> None:
        with simulated_world(seed, rates_per_s=RATES) as world:

            async def main(process: Process) -> None:
                await Toy(process, list(RATES), world.topics, guards or Guards()).run()

            plan = FaultPlan(world, only=only, every_s=every_s)
            for name in ("blue", "green"):
                world.add_instance(name, main).start()
            world.exchange.open(history=3)
            world.run(for_s=5)
            plan.begin()
            world.run(for_s=100)
            plan.end()
            world.run(for_s=60)
            world.exchange.halt()
            world.run_until(lambda: is_caught_up(world), within_s=400, every_s=30)
            self.verdict: Verdict = judge(world)
            self.struck = plan.struck
            self.exits = [ended for instance in world.instances for ended in instance.exits]
            self.callbacks = world.loop.callbacks_run
            self.newest = {m.symbol: m.newest_id for m in world.exchange.markets.values()}
            self.state = repr(world.rng.getstate())


def test_without_faults_the_tape_is_complete() -> None:
    run = Run(1, only=[])
    assert run.verdict.violations == []
    assert run.verdict.total > 500
    assert sum(run.verdict.behind.values()) == 0


@pytest.mark.parametrize("seed", range(12))
def test_the_toy_holds_the_promise_whatever_strikes(seed: int) -> None:
    run = Run(seed)
    assert run.verdict.violations == []
    assert sum(run.verdict.behind.values()) == 0
    assert [ended.error for ended in run.exits if ended.error is not None] == []


def test_one_seed_is_one_run() -> None:
    first, second = Run(3), Run(3)
    assert (first.callbacks, first.struck, first.newest, first.state) == (
        second.callbacks,
        second.struck,
        second.newest,
        second.state,
    )
    assert first.verdict == second.verdict


def test_every_kind_of_fault_can_strike() -> None:
    fates = [kind for kind in FaultKind if kind.value.startswith("commit_")]
    others = [kind for kind in FaultKind if kind not in fates]
    struck = Run(1, only=fates, every_s=(3, 6)).struck
    for seed in range(4):
        struck += Run(seed, only=others).struck
    # The toy has no roles.
    assert set(FaultKind) - struck.keys() == {FaultKind.ROLE_CHANGE}


@pytest.mark.parametrize(
    ("guards", "only"),
    [
        (
            Guards(position_in_transaction=False),
            [FaultKind.CRASH_IN_COMMIT, FaultKind.COMMIT_FATAL_DONE],
        ),
        (
            Guards(position_after_unknown=False),
            [FaultKind.COMMIT_FATAL_DONE],
        ),
        (Guards(renew_after_resumed=False), [FaultKind.COMMIT_LATE_COPY]),
        (Guards(fence=False), [FaultKind.FREEZE_LONG]),
        (
            Guards(read_to_watermark=False),
            [FaultKind.STRANGERS_TRANSACTION, FaultKind.CRASH_IN_COMMIT],
        ),
    ],
    ids=["position", "unknown", "late-copy", "fence", "watermark"],
)
def test_a_guard_taken_away_is_noticed(guards: Guards, only: list[FaultKind]) -> None:
    assert any(
        Run(seed, guards=guards, only=only, every_s=(5, 15)).verdict.violations
        for seed in range(20)
    )
    assert Run(0, only=only, every_s=(5, 15)).verdict.violations == []


def test_a_plan_that_has_ended_strikes_no_more() -> None:
    with simulated_world(1, rates_per_s=RATES) as world:
        plan = FaultPlan(world, every_s=(1, 2))
        plan.begin()
        world.run(for_s=20)
        plan.end()
        struck = dict(plan.struck)
        world.run(for_s=60)
        assert struck
        assert plan.struck == struck
        assert world.kafka.up
