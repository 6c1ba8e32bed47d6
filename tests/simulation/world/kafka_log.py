"""One partition's log: records and transaction markers, and who may see what of them."""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from enum import Enum
from typing import NamedTuple


class Outcome(Enum):
    """What became of a transaction."""

    OPEN = "open"
    COMMITTED = "committed"
    ABORTED = "aborted"


class Transaction:
    """One transaction at the broker. Its outcome is one decision; its markers follow."""

    __slots__ = ("epoch", "outcome", "partitions")

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.outcome = Outcome.OPEN
        self.partitions: dict[PartitionLog, None] = {}


class Written(NamedTuple):
    """A record on its way into a log."""

    key: bytes | None
    value: bytes | None
    timestamp_ms: int
    written_s: float
    """Virtual time, for the judge: the timestamp is a node's own idea."""


class Entry(NamedTuple):
    """One offset: a record, or the marker that ends a transaction (``record`` is None)."""

    offset: int
    record: Written | None
    transaction: Transaction | None


class PartitionLog:
    """Append-only; offsets count markers too. ``compacted`` logs lose superseded keys."""

    COMPACT_EVERY = 1_000
    """Entries a compacted log grows by before it is compacted again."""

    def __init__(self, topic: str, partition: int, *, compacted: bool = False) -> None:
        self.topic = topic
        self.partition = partition
        self.high_watermark = 0
        self.first_offset = 0
        self.entries: list[Entry] = []
        self.compacted_away: list[Entry] = []
        """Committed records no reader sees any more, in order, for the judge."""
        self.watchers: list[Callable[[], None]] = []
        """Called whenever there may be something new to read."""
        self._open: dict[Transaction, int] = {}
        self.compacted = compacted
        self._compact_at = self.COMPACT_EVERY

    @property
    def stable_offset(self) -> int:
        """The last stable offset: everything below it is decided."""
        return next(iter(self._open.values())) if self._open else self.high_watermark

    def append(self, records: Sequence[Written], transaction: Transaction | None) -> None:
        """Add records, which are invisible to committed readers until the marker follows."""
        if transaction is not None:
            transaction.partitions[self] = None
            self._open.setdefault(transaction, self.high_watermark)
        for record in records:
            self.entries.append(Entry(self.high_watermark, record, transaction))
            self.high_watermark += 1
        self._changed()

    def mark(self, transaction: Transaction) -> None:
        """Write the marker that ends a transaction."""
        self.entries.append(Entry(self.high_watermark, None, transaction))
        self.high_watermark += 1
        self._open.pop(transaction, None)
        if self.compacted and len(self.entries) >= self._compact_at:
            self._compact()
        self._changed()

    def lose_end(self, transactions: int) -> None:
        """Forget the newest committed transactions, as a disk that loses power does."""
        markers = [
            entry.offset
            for entry in self.entries
            if entry.record is None
            and entry.transaction is not None
            and entry.transaction.outcome is Outcome.COMMITTED
        ]
        end = markers[-transactions - 1] + 1
        self.entries = [entry for entry in self.entries if entry.offset < end]
        self.high_watermark = end
        self._open.clear()

    def end(self, *, committed: bool) -> int:
        """Return the offset readers get to: the stable one if they want committed records."""
        return self.stable_offset if committed else self.high_watermark

    def read(self, offset: int, *, limit: int, committed: bool) -> tuple[list[Entry], int]:
        """Return up to ``limit`` visible records from an offset, and the offset to go on from."""
        found: list[Entry] = []
        end = self.end(committed=committed)
        entries = self.entries
        index = bisect_left(entries, offset, key=_offset)
        while index < len(entries):
            entry = entries[index]
            if entry.offset >= end or len(found) == limit:
                return found, entry.offset
            if entry.record is not None and not (
                committed
                and entry.transaction is not None
                and entry.transaction.outcome is not Outcome.COMMITTED
            ):
                found.append(entry)
            index += 1
        return found, max(offset, min(end, self.high_watermark))

    def _compact(self) -> None:
        newest: dict[bytes | None, int] = {}
        for entry in self.entries:
            decided = entry.transaction is None or entry.transaction.outcome is Outcome.COMMITTED
            if entry.record is not None and decided:
                newest[entry.record.key] = entry.offset
        stable = self.stable_offset
        self.compacted_away += [
            entry
            for entry in self.entries
            if entry.offset < stable
            and entry.record is not None
            and newest.get(entry.record.key, entry.offset) > entry.offset
            and (entry.transaction is None or entry.transaction.outcome is Outcome.COMMITTED)
        ]
        self.entries = [
            entry
            for entry in self.entries
            if entry.offset >= stable
            or (entry.record is not None and newest.get(entry.record.key) == entry.offset)
        ]
        self._compact_at = len(self.entries) + self.COMPACT_EVERY

    def _changed(self) -> None:
        for watcher in list(self.watchers):
            watcher()


def _offset(entry: Entry) -> int:
    return entry.offset
