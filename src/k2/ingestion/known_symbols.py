"""Which symbols a topic knows: an unknown name in a question is a slip, not an empty answer."""

from collections.abc import Collection

from k2.errors import RejectError
from k2.ingestion.positions_look import Room


def require_known(room: Room, symbols: Collection[str]) -> None:
    """Refuse symbols of which nothing was ever recorded; reads nothing when none is named.

    Raises:
        RejectError: Naming them, and what there is.
        RetryError: If Kafka cannot be read.
    """
    if not symbols:
        return
    known: set[str] = set()
    for shard in range(room.partitions):
        record = room.record(shard)
        known |= set(record.identity.symbols) if record.identity is not None else set()
        known |= record.position.symbols.keys() if record.position is not None else set()
    if unknown := sorted(set(symbols) - known):
        raise RejectError(
            f"{room.names.trades} has no tape of {' '.join(unknown)}, it has "
            f"{' '.join(sorted(known)) or 'none at all'}"
        )
