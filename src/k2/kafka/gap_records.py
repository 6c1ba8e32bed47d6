"""PURE: declared gaps as records of the ``.gaps`` topic: JSON, keyed by symbol."""

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


def decode_gap(value: bytes | None) -> tuple[str, IdRange]:
    """Return symbol and ids of a gap record.

    Raises:
        RejectError: If the value is not a gap record.
    """
    try:
        found = _decode(value or b"")
        return found.symbol, IdRange(found.first_id, found.last_id)
    except (msgspec.MsgspecError, ValueError) as exc:
        raise RejectError(f"not a gap record: {exc}", error_type="serialize") from exc


def encode_gap(gap: Gap, *, declared_ts_us: int) -> bytes:
    """Return the record value of a gap declared at this time (our clock, us since the epoch)."""
    return msgspec.json.encode(
        _GapValue(
            symbol=gap.symbol,
            first_id=gap.ids.first_id,
            last_id=gap.ids.last_id,
            gap_class=gap.gap_class,
            reason=gap.reason,
            declared_ts_us=declared_ts_us,
        )
    )
