"""Moments as the records count them: microseconds since the epoch."""

from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def epoch_us(at: datetime) -> int:
    """Return microseconds since the epoch, exactly: ``datetime.timestamp`` is a float."""
    return (at - _EPOCH) // timedelta(microseconds=1)
