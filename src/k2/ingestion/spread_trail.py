"""What a histogram took in during the last minute."""

from collections import deque
from copy import copy

from k2.observability.families import Spread

REMEMBERED_S = 60.0


class SpreadTrail:
    """Remembers a histogram's figures of the last minute."""

    def __init__(self, spread: Spread) -> None:
        """Remember nothing yet."""
        self._spread = spread
        self._before: deque[tuple[float, Spread]] = deque()

    def sample(self, now_s: float) -> None:
        """Remember the figures as they are now."""
        self._before.append((now_s, _frozen(self._spread)))
        while now_s - self._before[0][0] > REMEMBERED_S:
            self._before.popleft()

    def mean_and_p99(self) -> tuple[float | None, float | None]:
        """Return both of the last minute; None where there is nothing to tell.

        The 99th percentile is the upper end of its bucket, and unknown beyond the last one.
        """
        lately = _frozen(self._spread)
        if self._before:
            before = self._before[0][1]
            lately.counts = [b - a for a, b in zip(before.counts, lately.counts, strict=True)]
            lately.total -= before.total
        if not lately.count:
            return None, None
        p99 = lately.quantile(0.99)
        return lately.total / lately.count, p99 if p99 is not None and p99 < float("inf") else None


def _frozen(spread: Spread) -> Spread:
    same = copy(spread)
    same.counts = list(spread.counts)
    return same
