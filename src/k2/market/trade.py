"""One trade on the tape, exact."""

from decimal import Decimal
from enum import Enum
from typing import Any

import msgspec

DECIMAL_PRECISION = 38
"""Digits of a price or quantity, as ``trade_v2.avsc`` and the lake's table hold it."""

DECIMAL_SCALE = 10
"""Decimals of a price or quantity. The exchange prints 8; more than this is a dead letter
and a declared gap, never rounded (ADR 0003)."""


class StreamKind(Enum):
    """Which id sequence a tape follows; the two never share one topic, table or key space."""

    AGG_TRADE = "aggTrade"
    TRADE = "trade"

    @property
    def code(self) -> str:
        """Short form inside a ``message_id``: ``agg`` or ``trade``."""
        return "agg" if self is StreamKind.AGG_TRADE else "trade"


class Side(Enum):
    """Who crossed the spread."""

    BUY = "BUY"
    SELL = "SELL"


class Origin(Enum):
    """How a trade reached us: live from the stream, or fetched later by REST."""

    STREAM = "STREAM"
    HEALED = "HEALED"


class Trade(msgspec.Struct, frozen=True, gc=False):
    """One row of a symbol's tape.

    ``source_id`` is the venue's consecutive id (``a`` for aggTrade, ``t`` for trade).
    ``first_trade_id``/``last_trade_id`` are the single fills it merges (both ``source_id`` for
    trade). Prices are quote currency per base unit, quantities base units, both exact.
    ``event_ts_us`` is None for healed trades: REST does not carry it.
    """

    symbol: str
    source_id: int
    price: Decimal
    quantity: Decimal
    first_trade_id: int
    last_trade_id: int
    trade_ts_us: int
    event_ts_us: int | None
    recv_ts_ns: int
    taker_side: Side
    best_match: bool | None
    origin: Origin


class BadRow(msgspec.Struct, frozen=True):
    """A row REST has and we cannot represent: its id will be declared, its bytes dead-lettered."""

    source_id: int
    error_type: str
    """``void`` when the exchange voided it, else a message-error type of contract R005."""
    error: str
    original: dict[str, Any]
