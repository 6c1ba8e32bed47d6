"""PURE: where a trade belongs on its symbol's tape.

One number decides everything: ``next_id``, the first id not on the tape yet. A trade below it is
a copy, one at it is written, one above it opens a hole and waits for it to be filled.
"""

import msgspec

from k2.errors import RejectError
from k2.market import IdRange, Trade

HELD_MAX = 50_000
"""Trades all symbols of a process may hold back together; beyond this they spill or are let go."""


class Placed(msgspec.Struct, frozen=True, gc=False):
    """A trade whose turn it is, with the id of the one before it (None: first on the tape)."""

    trade: Trade
    previous_id: int | None


class Hold(msgspec.Struct):
    """How many trades are held back, and may be, by all tapes that share it."""

    limit: int = HELD_MAX
    taken: int = 0


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

    Counters only grow: ``offered`` (trades put to it), ``placed`` (their turn came),
    ``duplicates`` (ids already on the tape or already held), ``released`` (trades not held because
    the hold was full), ``forgotten`` (held, and let go), ``disputed`` (let go because another
    copy, or their fills, told otherwise), ``fill_breaks`` (trades whose first fill does not follow
    the last fill before them: seen on the venue's futures, reported, never fatal).
    Each trade offered is in exactly one of the places that ``balances`` adds up.
    """

    def __init__(
        self,
        symbol: str,
        *,
        next_id: int | None,
        previous_id: int | None = None,
        hold: Hold | None = None,
    ) -> None:
        """Start at ``next_id``; None holds everything back until the start is known."""
        self.symbol = symbol
        self.next_id = next_id
        self.previous_id = previous_id
        self.offered = 0
        self.placed = 0
        self.duplicates = 0
        self.released = 0
        self.forgotten = 0
        self.fill_breaks = 0
        self.disputed = 0
        self._last_fill_id: int | None = None
        self._held: dict[int, Trade] = {}
        self._hold = hold or Hold()

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

    @property
    def balances(self) -> bool:
        """Whether every trade that was offered is accounted for."""
        known = self.placed + self.duplicates + self.released + self.forgotten + self.held
        return self.offered == known

    def offer(self, trade: Trade) -> list[Placed]:
        """Take a trade; return what can be written now, in id order (often just this one)."""
        source_id = trade.source_id
        self.offered += 1
        if source_id == self.next_id:
            placed = [self._place(trade)]
            if self._held:
                self._drain(placed)
            return placed
        if (self.next_id is not None and source_id < self.next_id) or self._agrees(trade):
            self.duplicates += 1
        elif self._hold.taken < self._hold.limit:
            self._held[source_id] = trade
            self._hold.taken += 1
        else:
            self.released += 1
        return []

    def _agrees(self, trade: Trade) -> bool:
        """Say whether this id is held already; two copies that tell otherwise are both let go."""
        held = self._held.get(trade.source_id)
        if held is None:
            return False
        if _told(held) != _told(trade):
            self._forget([trade.source_id])
            self.disputed += 1
        return True

    def begin(self, next_id: int) -> list[Placed]:
        """Start a tape whose start was not known yet."""
        return self.go_to(next_id, None)

    def unknown(self) -> None:
        """Hold everything back until ``begin``: nobody has written this symbol yet."""
        self.next_id = None
        self.previous_id = None

    def go_to(self, next_id: int, previous_id: int | None) -> list[Placed]:
        """Stand at ``next_id``, forward or back; return what that sets free.

        Forward is what the writer has written meanwhile, back is what a successor has to write
        again. What is held stays held, unless the tape has passed it.
        """
        self.next_id = next_id
        self.previous_id = previous_id
        self._last_fill_id = None
        self._forget([source_id for source_id in self._held if source_id < next_id])
        placed: list[Placed] = []
        self._drain(placed)
        return placed

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
        # A held copy of a declared id cannot be written any more: the declaration covers it.
        return self.go_to(ids.last_id + 1, self.previous_id)

    def disbelieve(self, *, above_id: int) -> list[Trade]:
        """Take back held trades with ids over ``above_id``: the exchange has no such ids yet."""
        absurd = [source_id for source_id in self._held if source_id > above_id]
        return self._forget(absurd)

    def let_go(self) -> int:
        """Hold nothing any more; return how many trades that were."""
        return len(self._forget(list(self._held)))

    def _forget(self, source_ids: list[int]) -> list[Trade]:
        self._hold.taken -= len(source_ids)
        self.forgotten += len(source_ids)
        return [self._held.pop(source_id) for source_id in source_ids]

    def _drain(self, placed: list[Placed]) -> None:
        while self.next_id is not None and (trade := self._held.pop(self.next_id, None)):
            self._hold.taken -= 1
            if self._last_fill_id is not None and trade.first_trade_id != self._last_fill_id + 1:
                # Held under a mangled id, most likely: its fills are those of another one. Let go;
                # the right one comes by a leg or by REST, whose word is taken whatever it says.
                self.disputed += 1
                self.forgotten += 1
                return
            placed.append(self._place(trade))

    def _place(self, trade: Trade) -> Placed:
        if self._last_fill_id is not None and trade.first_trade_id != self._last_fill_id + 1:
            self.fill_breaks += 1
        placed = Placed(trade, self.previous_id)
        self.previous_id = trade.source_id
        self.next_id = trade.source_id + 1
        self._last_fill_id = trade.last_trade_id
        self.placed += 1
        return placed
