"""One line of the tape, and exact decimals as integers of 10^-8."""

import msgspec

from k2.market import StreamKind

E8 = 10**8


class TapeRow(msgspec.Struct, frozen=True, gc=False):
    """One aggregate trade or one single fill, as the exchange published it.

    ``row_id`` is ``a`` for an aggregate and ``t`` for a fill; a fill has itself as first and last
    trade id. Price (quote per base unit) and quantity (base units) are the very strings that go on
    the wire. Times are microseconds since the epoch; a recording in milliseconds is multiplied.
    """

    symbol: str
    kind: StreamKind
    row_id: int
    price: str
    quantity: str
    first_trade_id: int
    last_trade_id: int
    trade_ts_us: int
    event_ts_us: int
    buyer_is_maker: bool
    best_match: bool = True


def format_e8(units: int) -> str:
    """Write a whole number of 10^-8 as the venue does, with exactly eight decimals."""
    return f"{units // E8}.{units % E8:08d}"


def parse_e8(text: str) -> int:
    """Read a non-negative decimal of at most eight decimals as a whole number of 10^-8.

    Raises:
        ValueError: If ``text`` is not such a number.
    """
    whole, _, decimals = text.partition(".")
    if not (whole + decimals).isdecimal() or not whole or len(decimals) > 8:
        raise ValueError(f"not a decimal of at most 8 decimals: {text!r}")
    return int(whole) * E8 + int(decimals.ljust(8, "0"))
