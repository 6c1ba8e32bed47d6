import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2.simulator.rows import format_e8, parse_e8


@given(st.integers(0, 10**22))
def test_what_is_written_is_read_back_exactly(units: int) -> None:
    text = format_e8(units)
    assert parse_e8(text) == units
    assert len(text.partition(".")[2]) == 8


@pytest.mark.parametrize("text", ["", ".5", "-1.0", "1e5", "NaN", "1.123456789", "1,5", " 1"])
def test_what_is_not_a_plain_decimal_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a decimal"):
        parse_e8(text)
