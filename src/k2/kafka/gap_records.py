"""Declared gaps as records of the ``.gaps`` topic: JSON, keyed by symbol."""

import time

import msgspec

from k2.market import Gap, GapClass


class _GapValue(msgspec.Struct):
    symbol: str
    first_id: int
    last_id: int
    gap_class: GapClass = msgspec.field(name="class")
    reason: str
    declared_ts_us: int


def encode_gap(gap: Gap) -> bytes:
    """Return the record value of a declared gap."""
    return msgspec.json.encode(
        _GapValue(
            symbol=gap.symbol,
            first_id=gap.ids.first_id,
            last_id=gap.ids.last_id,
            gap_class=gap.gap_class,
            reason=gap.reason,
            declared_ts_us=time.time_ns() // 1000,
        )
    )
