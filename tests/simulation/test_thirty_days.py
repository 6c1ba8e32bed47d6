"""Thirty days of one instance: connections are replaced under it, and nobody notices."""

import gc
from unittest.mock import patch

import pytest

from k2.ingestion.capture import Capture
from k2.observability import metrics
from simulation.capture_node import capture_main, sim_settings
from simulation.run import quiet
from simulation.world.checker import is_caught_up, judge
from simulation.world.world import simulated_world

DAY_S = 86_400.0
DAYS = 30
RATES_PER_S = {"BTCUSDT": 1 / 300, "ETHUSDT": 1 / 900}
"""Sparse: some 11,500 trades in all."""

POLL_S = 600.0
"""Nothing competes for the lease, so it need not be looked at each second."""

LOOK_EVERY_S = 30.0
"""How often deaf and quiet streams are looked for. Shipped: 5 s, half of this test's time."""


def rotations(leg: str) -> float:
    return sum(metrics.rotations.labels(reason, leg).value for reason in metrics.ROTATION_REASONS)


@pytest.mark.timeout(600)
def test_thirty_days_of_rotations_leave_no_trace() -> None:
    quiet()
    gc.collect()
    before = {leg: rotations(leg) for leg in "ab"}
    captures: list[Capture] = []
    with (
        patch("k2.ingestion.capture.LOOK_EVERY_S", LOOK_EVERY_S),
        patch("k2.ingestion.quiet.LOOK_EVERY_S", LOOK_EVERY_S),
        simulated_world(30, rates_per_s=RATES_PER_S) as world,
    ):
        settings = sim_settings(list(RATES_PER_S), connection_age_max_s=4 * 3600.0)
        main = capture_main(
            world,
            settings,
            poll_s=POLL_S,
            poll_interval_max_s=2 * POLL_S,
            made=lambda _, capture: captures.append(capture),
        )
        instance = world.add_instance("blue", main)
        world.exchange.open(history=3)
        instance.start()
        world.run(for_s=60)
        begun = world.exchange.rest_state.pages
        world.run(for_s=DAYS * DAY_S)
        pages = world.exchange.rest_state.pages - begun
        world.exchange.halt()
        assert world.run_until(lambda: is_caught_up(world), within_s=600, every_s=10)
        verdict = judge(world)
        assert verdict.violations == []
        assert sum(verdict.behind.values()) == 0
        assert verdict.total > 10_000
        assert sum(verdict.declared.values()) == 0
        assert pages == 0, "a rotation made REST heal"
        for leg in "ab":
            assert rotations(leg) - before[leg] >= 180
        assert len(captures) == 1
        assert instance.exits == []
