"""PURE: which ids a ledger holds, as a short list of ranges per symbol."""

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from itertools import pairwise

from k2.market import IdRange


class Coverage:
    """Per symbol, the ids held so far. A complete tape is one range, so this stays small."""

    def __init__(self, ranges: Mapping[str, Iterable[tuple[int, int]]] | None = None) -> None:
        """Start from stored ranges: symbol to (first, last) pairs, ends inclusive, ascending."""
        self._ranges = {
            symbol: [IdRange(first, last) for first, last in pairs]
            for symbol, pairs in (ranges or {}).items()
        }

    def add(self, symbol: str, source_id: int) -> bool:
        """Add one id; return False if it was there already."""
        held = self._ranges.setdefault(symbol, [])
        if held and source_id == held[-1].last_id + 1:  # the ordinary case: the tape grows
            held[-1] = IdRange(held[-1].first_id, source_id)
            return True
        at = bisect_right(held, source_id, key=lambda ids: ids.first_id)
        if at and source_id in held[at - 1]:
            return False
        joins_left = at > 0 and held[at - 1].last_id + 1 == source_id
        joins_right = at < len(held) and held[at].first_id - 1 == source_id
        first_id = held[at - 1].first_id if joins_left else source_id
        last_id = held[at].last_id if joins_right else source_id
        held[at - joins_left : at + joins_right] = [IdRange(first_id, last_id)]
        return True

    def copy(self) -> "Coverage":
        """Return an independent copy."""
        other = Coverage()
        other._ranges = {symbol: list(ids) for symbol, ids in self._ranges.items()}
        return other

    def symbols(self) -> list[str]:
        """Return the symbols that hold anything, sorted."""
        return sorted(symbol for symbol, held in self._ranges.items() if held)

    def ranges(self, symbol: str) -> list[IdRange]:
        """Return a symbol's ranges, ascending."""
        return list(self._ranges.get(symbol, []))

    def holes(self, symbol: str) -> list[IdRange]:
        """Return what a symbol lacks between its first and its last id, ascending."""
        return [
            IdRange(one.last_id + 1, other.first_id - 1)
            for one, other in pairwise(self._ranges.get(symbol, []))
        ]

    def count(self, symbol: str) -> int:
        """Return how many ids a symbol holds."""
        return sum(len(ids) for ids in self._ranges.get(symbol, []))

    def as_pairs(self) -> dict[str, list[tuple[int, int]]]:
        """Return what the constructor takes."""
        return {
            symbol: [(ids.first_id, ids.last_id) for ids in held]
            for symbol, held in sorted(self._ranges.items())
        }
