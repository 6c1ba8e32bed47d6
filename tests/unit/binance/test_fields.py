from decimal import Decimal, localcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2.binance.fields import amount, is_void, timestamp_us, trade_id
from k2.errors import RejectError
from k2.market import DECIMAL_PRECISION, DECIMAL_SCALE

INTEGER_DIGITS = DECIMAL_PRECISION - DECIMAL_SCALE


@given(
    whole=st.integers(0, 10**INTEGER_DIGITS - 1),
    fraction=st.text("0123456789", max_size=DECIMAL_SCALE),
    more_zeros=st.integers(0, 5),
)
def test_an_amount_is_exactly_what_was_printed(whole: int, fraction: str, more_zeros: int) -> None:
    text = f"{whole}.{fraction}{'0' * more_zeros}" if fraction or more_zeros else str(whole)
    unscaled = int(f"{whole}{fraction.ljust(DECIMAL_SCALE, '0')}")
    if unscaled == 0:
        with pytest.raises(RejectError):
            amount(text, name="price")
        return
    value = amount(text, name="price")
    sign, digits, exponent = value.as_tuple()
    assert sign == 0
    assert isinstance(exponent, int)
    assert -DECIMAL_SCALE <= exponent <= 0
    assert int("".join(map(str, digits))) * 10 ** (DECIMAL_SCALE + exponent) == unscaled


def test_a_context_of_28_digits_does_not_round() -> None:
    text = "12345678901234567890.0123456789"
    with localcontext(prec=28):
        value = amount(text, name="price")
    assert str(value) == text
    trailing_zeros = "1234567890123456789012345678.012345678900"
    with localcontext(prec=28):
        assert str(amount(trailing_zeros, name="price")) == trailing_zeros[:-2]


@pytest.mark.parametrize(
    "text",
    ["1_0", " 1", "1 ", "1\n", "1E5", "1e5", "NaN", "Infinity", "-1", "+1", "", ".", ".5", "5.",
     "1.2.3", "0x10", "1,5", "\u0661", "\uff11", "-0", "sNaN", "1" * 61],
)  # fmt: skip
def test_an_amount_is_plain_digits_only(text: str) -> None:
    with pytest.raises(RejectError, match="Invalid price format: ") as caught:
        amount(text, name="price")
    assert caught.value.error_type == "invalid_field"


@pytest.mark.parametrize(
    "text",
    ["0", "0.00000000", "000", "0.00000000001", "1.00000000001", "1.12345678901", "9" * 29,
     "12345678901234567890123456789.5"],
)  # fmt: skip
def test_an_amount_outside_the_schema_is_refused_not_rounded(text: str) -> None:
    with pytest.raises(RejectError, match="Invalid quantity format: "):
        amount(text, name="quantity")


@pytest.mark.parametrize(
    ("text", "exact"),
    [
        ("1.1234567890000", "1.1234567890"),
        ("0.0000000001", "1E-10"),
        ("9" * 28 + "." + "9" * 10, "9" * 28 + "." + "9" * 10),
        ("0" * 30 + "7", "7"),
    ],
)
def test_digits_that_are_only_zeros_cost_nothing(text: str, exact: str) -> None:
    assert amount(text, name="price").as_tuple() == Decimal(exact).as_tuple()


@given(st.text(max_size=70))
def test_any_text_is_an_amount_or_a_refusal(text: str) -> None:
    try:
        value = amount(text, name="price")
    except RejectError:
        return
    assert value.is_finite()
    assert value > 0


def test_a_trade_id_is_an_int64_from_zero() -> None:
    assert trade_id(0, name="a") == 0
    assert trade_id(2**63 - 1, name="a") == 2**63 - 1
    for value in (-1, 2**63, 10**30):
        with pytest.raises(RejectError, match="Invalid field: a="):
            trade_id(value, name="a")


def test_milliseconds_and_microseconds_are_told_apart_by_size() -> None:
    assert timestamp_us(1_767_225_600_123, name="T") == 1_767_225_600_123_000
    assert timestamp_us(1_767_225_600_123_456, name="T") == 1_767_225_600_123_456


@pytest.mark.parametrize("value", [0, -1, 1_767_225_600, 10**17, -(10**30), 10**30])
def test_a_time_outside_2009_to_2100_is_refused(value: int) -> None:
    with pytest.raises(RejectError, match="Invalid field: T="):
        timestamp_us(value, name="T")


def test_a_row_is_void_only_when_price_quantity_and_fills_say_so() -> None:
    assert is_void(price="0", quantity="0.00000000", first_trade_id=-1)
    assert not is_void(price="0", quantity="0", first_trade_id=7)
    assert not is_void(price="0.1", quantity="0", first_trade_id=-1)
    assert not is_void(price="0", quantity="10", first_trade_id=-1)
