"""What a process used of memory in the last hour, for a small plot beside the leak score."""

from collections import deque
from collections.abc import Callable

from k2.ingestion.health import MemoryHealth
from k2.observability.memory import MemoryUse

FIRST_EVERY_S = 2.0
POINTS_MAX = 60
SETTLING_S = 10.0
"""What is used before everything is loaded is no trend."""


class MemoryTrail:
    """At most ``POINTS_MAX`` samples; when they are full every other one goes."""

    def __init__(self, *, read: Callable[[], MemoryUse], leak_score: Callable[[], float]) -> None:
        """Sample what ``read`` tells; the score comes from whoever keeps it."""
        self._read = read
        self._leak_score = leak_score
        self._every_s = FIRST_EVERY_S
        self._points: deque[int] = deque()
        self._due_s: float | None = None
        self._rss_bytes = 0

    def sample(self, now_s: float) -> None:
        """Read once, and remember it when it is time."""
        self._rss_bytes = self._read().rss_bytes
        if self._due_s is None:
            self._due_s = now_s + SETTLING_S
        if now_s < self._due_s:
            return
        self._points.append(self._rss_bytes)
        if len(self._points) > POINTS_MAX and self._every_s < 60:
            self._points = deque(list(self._points)[::2])
            self._every_s *= 2
        elif len(self._points) > POINTS_MAX:
            self._points.popleft()
        self._due_s = now_s + self._every_s

    def health(self) -> MemoryHealth:
        """Return what to say of it."""
        return MemoryHealth(
            self._rss_bytes, round(self._leak_score(), 3), self._every_s, list(self._points)
        )
