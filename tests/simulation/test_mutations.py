"""Each guard taken away: a seed shows it. The shipped code passes the same seeds."""

from typing import NamedTuple

import pytest

from simulation import mutations
from simulation.mutations import Mutation
from simulation.run import quiet
from simulation.seed_run import run_seed
from simulation.variation import Limits, Variation
from simulation.world.fault_kinds import FaultKind

SEEDS = range(200)
"""Far more than are needed: the first that notices is enough."""
SEEDS_SHIPPED = range(4)
EVERY_S = (4.0, 12.0)

TWO_LEGS = Variation(
    rates_per_s={"BTCUSDT": 2.0, "ETHUSDT": 0.7},
    history={"BTCUSDT": 3, "ETHUSDT": 3},
    faults_for_s=40.0,
    catch_up_within_s=100.0,
)
NARROW = Variation(
    rates_per_s=TWO_LEGS.rates_per_s,
    history=TWO_LEGS.history,
    limits=Limits(ring_max=3, hold_max=2, spill_max_bytes=0),
    faults_for_s=40.0,
    catch_up_within_s=100.0,
)


class Case(NamedTuple):
    """A guard, and the faults it guards against."""

    mutation: Mutation
    only: tuple[FaultKind, ...]
    variation: Variation = TWO_LEGS


CASES = [
    Case(mutations.nobody_is_fenced, (FaultKind.FREEZE_LONG,)),
    Case(mutations.position_apart, (FaultKind.CRASH_IN_COMMIT,)),
    Case(mutations.unknown_taken_for_aborted, (FaultKind.COMMIT_FATAL_DONE,)),
    Case(mutations.producer_kept_after_resumed_commit, (FaultKind.COMMIT_LATE_COPY,)),
    Case(
        mutations.stable_offset_for_watermark,
        (FaultKind.STRANGERS_TRANSACTION, FaultKind.CRASH),
    ),
    Case(mutations.copies_are_placed, ()),
    Case(
        mutations.half_a_reading_is_believed,
        (FaultKind.POSITIONS_UNREADABLE, FaultKind.ROLE_CHANGE, FaultKind.CRASH),
    ),
    Case(mutations.holes_are_passed_over, (FaultKind.RESET,)),
    Case(mutations.full_ring_drops_its_oldest, (FaultKind.BROKER_DOWN,), NARROW),
    Case(mutations.full_hold_drops_for_good, (FaultKind.SKIP_ON_ALL,), NARROW),
    Case(
        mutations.ring_written_as_it_is,
        (FaultKind.FREEZE_SHORT, FaultKind.FREEZE_LONG, FaultKind.SLOW_LINK, FaultKind.TERMINATE),
    ),
]


@pytest.fixture(autouse=True)
def _without_logs() -> None:
    quiet()


def findings(case: Case, seed: int) -> list[str]:
    return run_seed(seed, variation=case.variation, only=case.only, every_s=EVERY_S).findings


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.mutation.__name__)
def test_a_guard_taken_away_is_noticed(case: Case) -> None:
    with case.mutation():
        assert any(findings(case, seed) for seed in SEEDS)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.mutation.__name__)
def test_the_shipped_code_passes_the_same_seeds(case: Case) -> None:
    assert {seed: found for seed in SEEDS_SHIPPED if (found := findings(case, seed))} == {}
