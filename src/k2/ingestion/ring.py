"""What the tape has placed and the log does not have yet, oldest first."""

from collections import deque
from collections.abc import Callable, Container, Mapping

from k2.kafka.position import SymbolPosition
from k2.market import Gap
from k2.tape.arbiter import Placed

RING_MAX = 100_000
"""Trades a process keeps while Kafka is away; beyond it frames are not taken in and come back by
REST. A standby lets go of its oldest instead."""

Item = Placed | Gap


class Ring(deque[Item]):
    """A shard's ring: the writer commits from it, a standby drops what the writer has committed."""

    @property
    def full(self) -> bool:
        """Whether it takes nothing more for now."""
        return len(self) >= RING_MAX

    def let_go_of_oldest(self) -> None:
        """Keep the newest ``RING_MAX``."""
        while len(self) > RING_MAX:
            self.popleft()

    def keep(self, wanted: Callable[[Item], bool]) -> None:
        """Drop what is not wanted."""
        kept = [item for item in self if wanted(item)]
        self.clear()
        self.extend(kept)

    def drop_written(
        self, positions: Mapping[str, SymbolPosition], *, carried: Container[str]
    ) -> None:
        """Drop what the log has by now, up to the first item it does not have."""
        while self and (_covered(self[0], positions) or symbol_of(self[0]) not in carried):
            self.popleft()

    def waiting(self, symbol: str, positions: Mapping[str, SymbolPosition]) -> list[Item]:
        """Return what of a symbol the log does not have yet."""
        return [
            item
            for item in self
            if symbol_of(item) == symbol
            and (isinstance(item, Gap) or not _covered(item, positions))
        ]


def symbol_of(item: Item) -> str:
    """Return whose tape an item is of."""
    return item.symbol if isinstance(item, Gap) else item.trade.symbol


def _covered(item: Item, positions: Mapping[str, SymbolPosition]) -> bool:
    if isinstance(item, Gap):
        return True
    where = positions.get(item.trade.symbol)
    return where is not None and item.trade.source_id < where.next_id
