"""PURE: declared gaps, and their repairs, as records of the ``.gaps`` topic: JSON, keyed by symbol.

A gap is declared once and never taken back; a later record says which of its ids were repaired.
"""

from enum import Enum

import msgspec

from k2.errors import RejectError
from k2.market import Gap, GapClass, IdRange

_REPAIRED = "a source had them after all: see the repairs topic"


class GapEvent(Enum):
    """What a gap record tells."""

    DECLARED = "declared"
    """No source had these ids in time."""
    REPAIRED = "repaired"
    """These ids, declared before, are in the repairs topic now."""


class GapRecord(msgspec.Struct, frozen=True):
    """One record of the ``.gaps`` topic. Times are our clock's, us since the epoch."""

    event: GapEvent
    symbol: str
    ids: IdRange
    gap_class: GapClass
    reason: str
    declared_ts_us: int
    repaired_ts_us: int | None


class _GapValue(msgspec.Struct, omit_defaults=True):
    symbol: str
    first_id: int
    last_id: int
    gap_class: GapClass = msgspec.field(name="class")
    reason: str
    declared_ts_us: int
    event: GapEvent | None = None  # absent: declared, by a version that knew nothing else
    repaired_ts_us: int | None = None


_decode = msgspec.json.Decoder(_GapValue).decode


def decode_gap(value: bytes | None) -> GapRecord:
    """Return what a gap record tells.

    Raises:
        RejectError: If the value is not a gap record.
    """
    try:
        found = _decode(value or b"")
        ids = IdRange(found.first_id, found.last_id)
    except (msgspec.MsgspecError, ValueError, RecursionError) as exc:
        raise RejectError(f"not a gap record: {exc}", error_type="serialize") from exc
    return GapRecord(
        event=found.event or GapEvent.DECLARED,
        symbol=found.symbol,
        ids=ids,
        gap_class=found.gap_class,
        reason=found.reason,
        declared_ts_us=found.declared_ts_us,
        repaired_ts_us=found.repaired_ts_us,
    )


def encode_gap(gap: Gap, *, declared_ts_us: int) -> bytes:
    """Return the record value of a gap declared at this time."""
    return msgspec.json.encode(
        _GapValue(
            symbol=gap.symbol,
            first_id=gap.ids.first_id,
            last_id=gap.ids.last_id,
            gap_class=gap.gap_class,
            reason=gap.reason,
            declared_ts_us=declared_ts_us,
            event=GapEvent.DECLARED,
        )
    )


def encode_repaired(
    symbol: str, ids: IdRange, *, repaired_ts_us: int, declared_ts_us: int | None = None
) -> bytes:
    """Return the record value that says these ids were repaired at this time.

    ``declared_ts_us`` is the open gap's; None when it is not known, the record then repeats the
    time of the repair. Every field of a declared gap is there, so that a reader which knows only
    those (the lake) can read it.
    """
    return msgspec.json.encode(
        _GapValue(
            symbol=symbol,
            first_id=ids.first_id,
            last_id=ids.last_id,
            gap_class=GapClass.MISSING,
            reason=_REPAIRED,
            declared_ts_us=repaired_ts_us if declared_ts_us is None else declared_ts_us,
            event=GapEvent.REPAIRED,
            repaired_ts_us=repaired_ts_us,
        )
    )
