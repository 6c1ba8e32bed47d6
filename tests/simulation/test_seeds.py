"""A thousand seeds of the shipped wiring: whatever strikes, the tape is complete and in order."""

import os

import pytest

from simulation.run import Total, run_seeds, told
from simulation.seed_run import run_seed
from simulation.world.fault_kinds import FaultKind

SEEDS = range(1_000)
TRADES_MIN = 50
"""A seed with fewer trades than this shows little."""


@pytest.mark.timeout(900)
def test_a_thousand_seeds_hold_the_promise() -> None:
    total = Total()
    for outcome in run_seeds(SEEDS, processes=os.cpu_count() or 1):
        total.add(outcome)
    assert total.failed == [], "\n".join(told(outcome) for outcome in total.failed)
    assert total.seeds == len(SEEDS)
    # Every kind of fault struck, and every path was taken.
    assert {kind.value for kind in FaultKind} - total.struck.keys() == set()
    assert min(total.met.values()) > 0
    assert total.least is not None
    assert total.least.trades >= TRADES_MIN


def test_a_seed_is_the_same_run_each_time() -> None:
    one, two = run_seed(11), run_seed(11)
    one.took_s = two.took_s = 0.0
    assert one == two
