import pytest

from k2.ingestion.spread_trail import SpreadTrail
from k2.observability.families import Spread


def test_only_what_came_in_the_last_minute_counts() -> None:
    spread = Spread((0.1, 1.0))
    trail = SpreadTrail(spread)
    trail.sample(0.0)
    spread.observe(0.9)
    for second in range(1, 62):
        trail.sample(float(second))
    spread.observe(0.05, times=99)
    mean_s, p99_s = trail.mean_and_p99()
    assert mean_s == pytest.approx(0.05)
    assert p99_s == 0.1


def test_nothing_lately_is_nothing_to_tell() -> None:
    spread = Spread((0.1,))
    spread.observe(0.05)
    trail = SpreadTrail(spread)
    trail.sample(0.0)
    assert trail.mean_and_p99() == (None, None)


def test_beyond_the_last_bucket_the_percentile_is_not_known() -> None:
    spread = Spread((0.1,))
    trail = SpreadTrail(spread)
    spread.observe(7)
    assert trail.mean_and_p99() == (7, None)
