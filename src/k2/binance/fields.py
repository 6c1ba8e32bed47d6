"""PURE: the checks every trade passes, whichever way it came in (frame or REST row)."""

import re
from decimal import Decimal

from k2.errors import RejectError
from k2.market import DECIMAL_PRECISION, DECIMAL_SCALE

# Plain digits only: Decimal() would also take "1_0", " 1", "NaN", "1E5" and non-ASCII digits.
_AMOUNT = re.compile(r"[0-9]{1,60}(?:\.([0-9]{1,60}))?", re.ASCII)
_INTEGER_DIGITS_MAX = DECIMAL_PRECISION - DECIMAL_SCALE
_INT64_MAX = 2**63 - 1

# Binance answers in microseconds when asked (16 digits), else in milliseconds (13 digits); both
# eras of its dumps are told apart by the same magnitude ("Time unit", checked 2026-11-21).
_MICROSECONDS_FROM = 10**14
_TS_US_MIN = 1_230_768_000 * 10**6  # 2009-01-01: nothing traded before
_TS_US_MAX = 4_102_444_800 * 10**6  # 2100-01-01


def amount(text: str, *, name: str) -> Decimal:
    """Return a positive price or quantity exactly as printed.

    Args:
        text: The venue's string, such as ``"93712.01000000"``.
        name: ``price`` or ``quantity``, for the message.

    Raises:
        RejectError: If it is not a plain decimal above zero, or has more digits than the schema
            holds (it is never rounded).
    """
    match = _AMOUNT.fullmatch(text)
    if match is None:
        raise RejectError(f"Invalid {name} format: {text[:80]!r}")
    value = Decimal(text)
    if not value:
        raise RejectError(f"Invalid {name} format: {text[:80]!r} is not above zero")
    decimals = match[1]
    if decimals is not None and len(decimals) > DECIMAL_SCALE:
        if decimals[DECIMAL_SCALE:].strip("0"):
            raise RejectError(
                f"Invalid {name} format: {text[:80]!r} has more than {DECIMAL_SCALE} decimals"
            )
        value = Decimal(text[: match.start(1) + DECIMAL_SCALE])
    if value.adjusted() >= _INTEGER_DIGITS_MAX:
        raise RejectError(
            f"Invalid {name} format: {text[:80]!r} has over {_INTEGER_DIGITS_MAX} digits"
        )
    return value


def trade_id(value: int, *, name: str) -> int:
    """Return ``value`` if it can be an id: 0 to 2**63 - 1."""
    if not 0 <= value <= _INT64_MAX:
        raise RejectError(f"Invalid field: {name}={value} is not a trade id")
    return value


def fills(*, first_id: int, last_id: int) -> tuple[int, int]:
    """Return the first and last fill id of an aggregate, in order."""
    first, last = trade_id(first_id, name="f"), trade_id(last_id, name="l")
    if first > last:
        raise RejectError(f"Invalid field: f={first} is after l={last}")
    return first, last


def timestamp_us(value: int, *, name: str) -> int:
    """Return a venue time in microseconds since the epoch, from milliseconds or microseconds."""
    us = value if value >= _MICROSECONDS_FROM else value * 1000
    if not _TS_US_MIN <= us <= _TS_US_MAX:
        raise RejectError(f"Invalid field: {name}={value} is not a time between 2009 and 2100")
    return us


def is_void(*, price: str, quantity: str, first_trade_id: int) -> bool:
    """Say whether the venue voided this row (``p=0, q=0, f=-1``; changelog of 2022-04)."""
    return (
        first_trade_id == -1
        and not price.replace(".", "").strip("0")
        and not quantity.replace(".", "").strip("0")
    )
