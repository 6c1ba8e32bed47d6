"""PURE: memory samples in, a score out: 0 is steady, 1 is a leak (contract R125, C16).

Two windows are judged. The last hour shows a fast leak within minutes. The last day, in means of
12 minutes, shows one of 50 MB a day, which an hour cannot tell from noise.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

MB = 1 << 20
"""The contract's alerts count in these: 400 MB is 419,430,400 bytes (R103)."""
WARM_UP_S = 600.0
CERTAIN_FROM_SAMPLES = 60
PARTS = 3


class MemorySample(NamedTuple):
    """What a process used at one time of a clock that never jumps."""

    time_s: float
    rss_bytes: float


class LeakWindow(NamedTuple):
    """How much of the past is judged, and how."""

    sample_every_s: float
    samples_min: int
    """With fewer there is no opinion: the score is 0."""
    samples_max: int
    curve: tuple[tuple[float, float], ...]
    """Growth in MB an hour to score; straight lines between."""


HOUR = LeakWindow(30.0, 10, 120, ((0.0, 0.0), (10.0, 0.5), (50.0, 1.0)))
GROWTH_MAX_MB_PER_H = 50.0 / 24
"""What R124 allows over a day."""
DAY = LeakWindow(720.0, 30, 120, ((0.0, 0.0), (GROWTH_MAX_MB_PER_H, 1.0)))
"""Six hours at least, 24 at most. Half of the allowed growth is still good (0.5)."""


def leak_score(samples: Sequence[MemorySample], *, window: LeakWindow = HOUR) -> float:
    """Say how much the newest samples of a window look like a leak.

    The growth is the slope of the least-squares line, and no more than that of any third of the
    window: a leak goes on, while a step, a filled cache or a warm-up that settles leaves at least
    one third level. What the window's curve makes of it is multiplied by the line's R2.

    Args:
        samples: In order of time.
        window: How many of them count, and what growth is much.

    Returns:
        0 to 1: below 0.5 is good, above 0.8 a leak.
    """
    newest = samples[-window.samples_max :]
    if len(newest) < window.samples_min:
        return 0.0
    slope, share_explained = _line(newest)
    slopes = [slope, *(_line(part)[0] for part in _parts(newest))]
    growth_mb_per_h = min(slopes) * 3600 / MB
    return _on_curve(growth_mb_per_h, window.curve) * share_explained


class MemoryHistory:
    """The samples of one process that its score needs: bounded, however long it runs."""

    def __init__(self) -> None:
        self._first_s: float | None = None
        self._hour: deque[MemorySample] = deque(maxlen=HOUR.samples_max)
        self._day: deque[MemorySample] = deque(maxlen=DAY.samples_max)
        self._thinned: list[MemorySample] = []

    def add(self, sample: MemorySample) -> None:
        """Take the next sample; those of the first ten minutes are warm-up and left out."""
        if self._first_s is None:
            self._first_s = sample.time_s
        if sample.time_s - self._first_s < WARM_UP_S:
            return
        self._hour.append(sample)
        if self._thinned and sample.time_s - self._thinned[0].time_s >= DAY.sample_every_s:
            self._day.append(_mean(self._thinned))
            self._thinned.clear()
        self._thinned.append(sample)

    @property
    def leak_score(self) -> float:
        """The larger of both windows' scores.

        The hour's counts in full once half of it is there: in a few minutes the end of a warm-up,
        or one rise of a sawtooth, is as straight as a leak.
        """
        certainty = min(1.0, len(self._hour) / CERTAIN_FROM_SAMPLES)
        return max(
            certainty * leak_score(tuple(self._hour)), leak_score(tuple(self._day), window=DAY)
        )


def score_of_run(samples: Iterable[MemorySample]) -> float:
    """Return the score a process has after all these samples, warm-up included."""
    history = MemoryHistory()
    for sample in samples:
        history.add(sample)
    return history.leak_score


def _line(samples: Sequence[MemorySample]) -> tuple[float, float]:
    """Return slope (bytes a second) and R2 of the least-squares line; 0, 0 where there is none."""
    if len(samples) < 2:
        return 0.0, 0.0
    mean = _mean(samples)
    times_s = [one.time_s - mean.time_s for one in samples]
    sizes = [one.rss_bytes - mean.rss_bytes for one in samples]
    time_spread = sum(t * t for t in times_s)
    size_spread = sum(s * s for s in sizes)
    if not time_spread or not size_spread:
        return 0.0, 0.0
    together = sum(t * s for t, s in zip(times_s, sizes, strict=True))
    share_explained = together**2 / (time_spread * size_spread)
    return together / time_spread, min(1.0, share_explained)  # rounding may exceed 1


def _parts(samples: Sequence[MemorySample]) -> list[Sequence[MemorySample]]:
    bounds = [len(samples) * part // PARTS for part in range(PARTS + 1)]
    return [samples[start:end] for start, end in pairwise(bounds)]


def _mean(samples: Sequence[MemorySample]) -> MemorySample:
    count = len(samples)
    return MemorySample(
        sum(one.time_s for one in samples) / count, sum(one.rss_bytes for one in samples) / count
    )


def _on_curve(value: float, curve: Sequence[tuple[float, float]]) -> float:
    for (x, y), (next_x, next_y) in pairwise(curve):
        if value < next_x:
            return y + max(0.0, value - x) / (next_x - x) * (next_y - y)
    return curve[-1][1]
