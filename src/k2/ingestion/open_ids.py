"""PURE: is an id declared and looked for? Asked for every late copy of a trade, so it is cheap."""

from bisect import bisect_right
from collections.abc import Iterable

from k2.kafka.position import OpenGap


class OpenIds:
    """The ids of open gaps by symbol; sorted anew only when the gaps are other ones."""

    def __init__(self) -> None:
        """Begin with none."""
        self._gaps: tuple[OpenGap, ...] = ()
        self._symbols: dict[str, tuple[list[int], list[int]]] = {}
        """First ids, ascending, and beside each the highest last id so far: gaps may overlap."""

    def has(self, gaps: tuple[OpenGap, ...], symbol: str, source_id: int) -> bool:
        """Say whether one of these gaps, a position's, has an id of a symbol."""
        # Each commit makes a new tuple, mostly of the same gaps: comparing them takes no time.
        if gaps is not self._gaps:
            if gaps != self._gaps:
                self._symbols = _by_symbol(gaps)
            self._gaps = gaps
        if symbol not in self._symbols:
            return False
        first_ids, last_ids = self._symbols[symbol]
        at = bisect_right(first_ids, source_id)
        return at > 0 and source_id <= last_ids[at - 1]


def _by_symbol(gaps: Iterable[OpenGap]) -> dict[str, tuple[list[int], list[int]]]:
    found: dict[str, tuple[list[int], list[int]]] = {}
    for gap in sorted(gaps, key=lambda one: one.ids):
        first_ids, last_ids = found.setdefault(gap.symbol, ([], []))
        first_ids.append(gap.ids.first_id)
        last_ids.append(max(gap.ids.last_id, last_ids[-1] if last_ids else -1))
    return found
