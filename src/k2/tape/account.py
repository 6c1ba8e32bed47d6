"""PURE: what became of every trade that was offered to some tapes."""

from typing import Self

import msgspec

from k2.tape.arbiter import SymbolTape


class Account(msgspec.Struct):
    """Counts of trades. ``offered`` is the sum of the others, or one was lost on the way."""

    offered: int = 0
    placed: int = 0
    """Their turn came: as many have to be queued for the log."""
    copies: int = 0
    dropped: int = 0
    """Let go: no room, disputed, absurd, or covered by a declaration."""
    held: int = 0

    def add(self, tape: SymbolTape) -> Self:
        """Count what was offered to one more tape."""
        self.offered += tape.offered
        self.placed += tape.placed
        self.copies += tape.duplicates
        self.dropped += tape.released + tape.forgotten
        self.held += tape.held
        return self

    def join(self, other: Self) -> None:
        """Count what another account counted."""
        self.offered += other.offered
        self.placed += other.placed
        self.copies += other.copies
        self.dropped += other.dropped
        self.held += other.held

    @property
    def balances(self) -> bool:
        """Whether every trade is accounted for."""
        return self.offered == self.placed + self.copies + self.dropped + self.held
