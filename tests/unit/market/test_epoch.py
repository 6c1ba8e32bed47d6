from datetime import UTC, datetime, timedelta, timezone

from hypothesis import given
from hypothesis import strategies as st

from k2.market.epoch import epoch_us


@given(st.integers(-(10**15), 253_402_300_799_999_999))
def test_microseconds_of_any_moment_are_exact(ts_us: int) -> None:
    assert epoch_us(datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=ts_us)) == ts_us


def test_the_zone_counts() -> None:
    assert epoch_us(datetime(1970, 1, 1, 2, tzinfo=timezone(timedelta(hours=2)))) == 0
