"""Declared gaps as records of the ``.gaps`` topic: JSON, keyed by symbol."""

import time
from typing import Any

import msgspec

from k2.errors import RejectError
from k2.market import Gap, GapClass, IdRange


class _GapValue(msgspec.Struct):
    symbol: str
    first_id: int
    last_id: int
    gap_class: GapClass = msgspec.field(name="class")
    reason: str
    declared_ts_us: int


_decode = msgspec.json.Decoder(_GapValue).decode


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


def decode_gap(value: Any) -> tuple[Gap, int]:
    """Return a gap and when it was declared (microseconds since the epoch).

    Raises:
        RejectError: If the value is not a gap record.
    """
    try:
        found = _decode(value)
        ids = IdRange(found.first_id, found.last_id)
    except (msgspec.MsgspecError, ValueError, TypeError) as exc:
        raise RejectError(f"not a gap record: {exc}", error_type="serialize") from exc
    return Gap(found.symbol, ids, found.gap_class, found.reason), found.declared_ts_us
