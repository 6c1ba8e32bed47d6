"""How far our clock is from the exchange's, and how sure that is.

Trades carry the exchange's time and ours. Their difference is a latency only as far as the clocks
agree: a clock that is behind makes it negative, and nothing here hides that.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import structlog

from k2.errors import RetryError
from k2.observability import metrics

ASK_EVERY_S = 60.0
QUESTIONS = 3
KEPT = 10
"""Answers the best is chosen from: ten minutes of them, for clocks drift."""

FAR_OFF_S = 1.0

_log = structlog.get_logger()


class Offset(NamedTuple):
    """Ours less theirs, in seconds, and by how much that may be wrong."""

    offset_s: float
    uncertainty_s: float


def offset_of(*, before_us: int, exchange_us: int, after_us: int) -> Offset:
    """Return what one question tells.

    The exchange read its clock at some moment between our two looks at ours, nobody knows which:
    the middle is the best guess, and half of the time between them is how wrong it may be (RFC
    5905, section 8).
    """
    middle_us = (before_us + after_us) / 2
    return Offset((middle_us - exchange_us) / 1e6, (after_us - before_us) / 2e6)


class ClockWatch:
    """Asks now and then; the surest of the last answers counts."""

    def __init__(
        self,
        ask: Callable[[], Awaitable[tuple[int, int, int]]],
        *,
        found: Callable[[Offset], None] | None = None,
    ) -> None:
        """Name what asks (our clock before, theirs, ours after, in us since the epoch).

        ``found`` is told of the surest answer after each look.
        """
        self.best: Offset | None = None
        self._ask = ask
        self._found = found
        self._answers: deque[Offset] = deque(maxlen=KEPT)
        self._told = False

    async def run(self) -> None:
        """Ask for ever."""
        while True:
            await self.look()
            await asyncio.sleep(ASK_EVERY_S)

    async def look(self) -> None:
        """Ask a few times, and show the surest answer of late."""
        found: list[Offset] = []
        for _ in range(QUESTIONS):
            try:
                before_us, exchange_us, after_us = await self._ask()
            except RetryError as exc:
                _log.debug("clock_not_compared", reason=str(exc))
                continue
            if after_us < before_us:
                # Our clock was set back meanwhile: what was found until now was another clock's.
                self._answers.clear()
                found.clear()
                continue
            found.append(offset_of(before_us=before_us, exchange_us=exchange_us, after_us=after_us))
        if not found:
            return
        self._answers.append(min(found, key=lambda one: one.uncertainty_s))
        self.best = min(self._answers, key=lambda one: one.uncertainty_s)
        metrics.clock_offset.set(self.best.offset_s)
        metrics.clock_uncertainty.set(self.best.uncertainty_s)
        if self._found is not None:
            self._found(self.best)
        far = abs(self.best.offset_s) - self.best.uncertainty_s > FAR_OFF_S
        if far and not self._told:
            _log.warning(
                "clock_far_off",
                offset_s=round(self.best.offset_s, 3),
                uncertainty_s=round(self.best.uncertainty_s, 3),
                fix="synchronise this machine's clock (chrony or systemd-timesyncd)",
            )
        self._told = far
