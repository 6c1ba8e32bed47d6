"""What the tape has placed and the log does not have yet, oldest first."""

from collections import deque
from collections.abc import Callable, Container, Iterable, Mapping

from k2.kafka.position import SymbolPosition
from k2.market import Gap
from k2.tape.arbiter import Placed

RING_MAX = 100_000
"""Trades a process keeps while Kafka is away; beyond it frames are not taken in and come back by
REST. A standby lets go of its oldest instead."""

Item = Placed | Gap


class Ring(deque[Item]):
    """A shard's ring: the writer commits from it, a standby drops what the writer has committed.

    Counters only grow: ``queued`` items came in, ``trades`` of them no declarations; ``written``
    ones left into the log by us, and ``passed`` ones otherwise: another process wrote them, or they
    go on their tapes again.
    """

    def __init__(self, *, rings: int = 1) -> None:
        """Begin empty; so many rings of a process share ``RING_MAX``."""
        super().__init__()
        self._rings = rings
        self.queued = 0
        self.trades = 0
        self.written = 0
        self.passed = 0

    @property
    def balances(self) -> bool:
        """Whether every item that came in is accounted for."""
        return self.queued == self.written + self.passed + len(self)

    @property
    def full(self) -> bool:
        """Whether it takes nothing more for now."""
        return len(self) >= self._most

    @property
    def _most(self) -> int:
        return max(1, RING_MAX // self._rings)

    def put(self, items: Iterable[Item]) -> None:
        """Take in more, in tape order."""
        for item in items:
            self.append(item)
            self.queued += 1
            if isinstance(item, Placed):
                self.trades += 1

    def landed(self, items: int) -> None:
        """The oldest so many are in the log, written by us."""
        for _ in range(items):
            self.popleft()
        self.written += items

    def empty(self) -> list[Item]:
        """Return everything, and keep nothing."""
        items = list(self)
        self.clear()
        self.passed += len(items)
        return items

    def let_go_of_oldest(self) -> None:
        """Keep as many of the newest as there is room for."""
        while len(self) > self._most:
            self._pass()

    def keep(self, wanted: Callable[[Item], bool]) -> None:
        """Drop what is not wanted."""
        kept = [item for item in self if wanted(item)]
        self.passed += len(self) - len(kept)
        self.clear()
        self.extend(kept)

    def drop_written(
        self, positions: Mapping[str, SymbolPosition], *, carried: Container[str]
    ) -> None:
        """Drop what the log has by now, up to the first item it does not have."""
        while self and (_covered(self[0], positions) or symbol_of(self[0]) not in carried):
            self._pass()

    def waiting(self, symbol: str, positions: Mapping[str, SymbolPosition]) -> list[Item]:
        """Return what of a symbol the log does not have yet."""
        return [
            item
            for item in self
            if symbol_of(item) == symbol
            and (isinstance(item, Gap) or not _covered(item, positions))
        ]

    def _pass(self) -> None:
        self.popleft()
        self.passed += 1


def symbol_of(item: Item) -> str:
    """Return whose tape an item is of."""
    return item.symbol if isinstance(item, Gap) else item.trade.symbol


def _covered(item: Item, positions: Mapping[str, SymbolPosition]) -> bool:
    if isinstance(item, Gap):
        return True
    where = positions.get(item.trade.symbol)
    return where is not None and item.trade.source_id < where.next_id
