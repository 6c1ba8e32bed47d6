"""PURE: where a trade belongs on its symbol's tape.

One number decides everything: ``next_id``, the first id not on the tape yet. A trade below it is
a copy, one at it is written, one above it opens a hole and waits for it to be filled.
"""

import msgspec

from k2.errors import RejectError
from k2.market import IdRange, Trade

HELD_MAX = 50_000
"""Trades one symbol may hold back; beyond this they are let go and come back by REST."""


class Placed(msgspec.Struct, frozen=True, gc=False):
    """A trade whose turn it is, with the id of the one before it (None: first on the tape)."""

    trade: Trade
    previous_id: int | None


def _told(trade: Trade) -> tuple[object, ...]:
    return (
        trade.price,
        trade.quantity,
        trade.first_trade_id,
        trade.last_trade_id,
        trade.taker_side,
    )


class SymbolTape:
    """The tape of one symbol, up to its next id.

    Counters only grow: ``duplicates`` (ids already on the tape or already held), ``released``
    (held trades let go because the hold was full; REST has them).
    """

    def __init__(
        self,
        symbol: str,
        *,
        next_id: int | None,
        previous_id: int | None = None,
        held_max: int = HELD_MAX,
    ) -> None:
        """Start at ``next_id``; None means the first trade offered starts the tape."""
        self.symbol = symbol
        self.next_id = next_id
        self.previous_id = previous_id
        self.duplicates = 0
        self.released = 0
        self._held: dict[int, Trade] = {}
        self._held_max = held_max

    @property
    def hole(self) -> IdRange | None:
        """The ids missing before the first held trade, or None while nothing is held."""
        if not self._held or self.next_id is None:
            return None
        return IdRange(self.next_id, min(self._held) - 1)

    @property
    def held(self) -> int:
        """How many trades wait for a hole to fill."""
        return len(self._held)

    def offer(self, trade: Trade) -> list[Placed]:
        """Take a trade; return what can be written now, in id order (often just this one)."""
        if self.next_id is None:
            self.next_id = trade.source_id
        if trade.source_id == self.next_id:
            placed = [self._place(trade)]
            if self._held:
                self._drain(placed)
            return placed
        if trade.source_id < self.next_id or trade.source_id in self._held:
            self.duplicates += 1
        elif len(self._held) < self._held_max:
            self._held[trade.source_id] = trade
        else:
            self.released += 1
        return []

    def correct(self, trade: Trade) -> None:
        """Let the exchange's own record replace a held copy of this id that tells otherwise."""
        held = self._held.get(trade.source_id)
        if held is not None and _told(held) != _told(trade):
            self._held[trade.source_id] = trade

    def declare(self, ids: IdRange) -> list[Placed]:
        """Pass over ``ids``, which no source can deliver; return what that sets free.

        Raises:
            RejectError: If the declared ids do not start at ``next_id``: passing over ids that
                may still come would lose them.
        """
        if ids.first_id != self.next_id:
            raise RejectError(f"{self.symbol}: declared {ids} but the next id is {self.next_id}")
        self.next_id = ids.last_id + 1
        # A held copy of a declared id cannot be written any more: the declaration covers it.
        for source_id in [held for held in self._held if held <= ids.last_id]:
            del self._held[source_id]
        placed: list[Placed] = []
        self._drain(placed)
        return placed

    def disbelieve(self, *, above_id: int) -> list[Trade]:
        """Take back held trades with ids over ``above_id``: the exchange has no such ids yet."""
        absurd = [source_id for source_id in self._held if source_id > above_id]
        return [self._held.pop(source_id) for source_id in absurd]

    def _drain(self, placed: list[Placed]) -> None:
        while self.next_id is not None and (trade := self._held.pop(self.next_id, None)):
            placed.append(self._place(trade))

    def _place(self, trade: Trade) -> Placed:
        placed = Placed(trade, self.previous_id)
        self.previous_id = trade.source_id
        self.next_id = trade.source_id + 1
        return placed
