"""What this process uses of memory, watched: a reader and a clock in, gauges and a log line out."""

import asyncio
from collections.abc import Callable
from typing import NamedTuple

import psutil  # type: ignore[import-untyped]  # ships no type information
import structlog

from k2.observability.leak import HOUR, MB, MemoryHistory, MemorySample

SAMPLES_PER_LOG_LINE = 10

_log = structlog.get_logger()


class MemoryUse(NamedTuple):
    """Bytes of one process."""

    rss_bytes: int
    """In RAM."""
    vms_bytes: int
    """Of address space."""


def own_memory() -> MemoryUse:
    """Ask the operating system what this process uses now."""
    found = psutil.Process().memory_info()
    return MemoryUse(found.rss, found.vms)


class MemoryWatch:
    """Samples memory each 30 s, keeps the leak score, and says both each 5 minutes."""

    def __init__(self, *, read: Callable[[], MemoryUse], monotonic_s: Callable[[], float]) -> None:
        """Watch what ``read`` tells, on a clock that never jumps."""
        self._read = read
        self._monotonic_s = monotonic_s
        self._history = MemoryHistory()
        self._leak_score = 0.0

    def use(self) -> MemoryUse:
        """Return what is used now."""
        return self._read()

    @property
    def leak_score(self) -> float:
        """0 to 1, as of the last sample; 0 until there is enough to judge (15 minutes)."""
        return self._leak_score

    async def run(self) -> None:
        """Sample for ever; the first line comes at once, as what later ones are compared with."""
        while True:
            for place in range(SAMPLES_PER_LOG_LINE):
                self.take_sample()
                if not place:
                    self._say()
                await asyncio.sleep(HOUR.sample_every_s)

    def take_sample(self) -> None:
        """Read once and judge anew."""
        self._history.add(MemorySample(self._monotonic_s(), self.use().rss_bytes))
        self._leak_score = self._history.leak_score

    def _say(self) -> None:
        rss_mb = round(self.use().rss_bytes / MB, 1)
        _log.info("memory", rss_mb=rss_mb, leak_score=round(self.leak_score, 3))
