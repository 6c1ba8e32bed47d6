"""PURE: what a symbol's tape did in the last minutes, for a rate and a bar of what became of it."""

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from k2.ingestion.health import Part, Stretch
from k2.market import IdRange

SAMPLE_EVERY_S = 5.0
REMEMBERED_S = 120.0
RATE_OVER_S = 10.0


class TrailSample(NamedTuple):
    """Where a tape stood at one time of a clock that never jumps."""

    time_s: float
    next_id: int
    came: int
    """Ids placed or held: it grows with each trade that came, hole or not."""


class TapeTrail:
    """One symbol's samples, one each ``SAMPLE_EVERY_S``, of the last two minutes."""

    def __init__(self) -> None:
        """Remember nothing yet."""
        self._samples: deque[TrailSample] = deque()

    def add(self, sample: TrailSample) -> None:
        """Remember a sample, unless the last one is too recent; a tape that went back is anew."""
        if self._samples and sample.next_id < self._samples[-1].next_id:
            self._samples.clear()
        if self._samples and sample.time_s - self._samples[-1].time_s < SAMPLE_EVERY_S:
            return
        self._samples.append(sample)
        while sample.time_s - self._samples[0].time_s > REMEMBERED_S:
            self._samples.popleft()

    def since_id(self, default: int) -> int:
        """Return where the tape stood two minutes ago, or when we began to look."""
        return self._samples[0].next_id if self._samples else default

    def rate_per_s(self, now: TrailSample) -> float:
        """Return how many trades a second came since the newest sample old enough to tell."""
        old = [one for one in self._samples if now.time_s - one.time_s >= RATE_OVER_S]
        since = old[-1] if old else self._samples[0] if self._samples else now
        passed_s = now.time_s - since.time_s
        return max(0, now.came - since.came) / passed_s if passed_s > 0 else 0.0


def stretches(
    *,
    since_id: int,
    written_to: int,
    placed_to: int,
    hole: IdRange | None,
    held: int,
    declared: Iterable[IdRange],
) -> list[Stretch]:
    """Say what became of the ids from ``since_id`` on, in id order.

    Args:
        since_id: First id of the answer.
        written_to: First id that is not in the log.
        placed_to: First id that is not on our tape.
        hole: Missing ids that later trades wait for.
        held: How many wait.
        declared: Ids in the log as declared gaps.
    """
    found: list[Stretch] = []

    def say(part: Part, ids: int) -> None:
        if ids > 0:
            found.append(Stretch(part, ids))

    at = since_id
    for gap in sorted(declared, key=lambda gap: gap.first_id):
        first, end = max(gap.first_id, at), min(gap.last_id + 1, written_to)
        if first < end:
            say("written", first - at)
            say("declared", end - first)
            at = end
    say("written", written_to - at)
    at = max(at, written_to)
    say("waiting", placed_to - at)
    if hole is not None:
        say("missing", hole.last_id + 1 - max(at, placed_to))
        say("held", held)
    return found
