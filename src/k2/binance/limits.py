"""PURE: the venue's limits as arithmetic on a clock that the caller reads.

Source: fact sheet section 2 and 6.4 (official docs, checked 2026-11-21).
"""

from collections.abc import Iterable, Sequence
from enum import Enum

import msgspec

from k2.market import StreamKind

CLIENT_FRAMES_PER_S = 4
"""The venue allows 5 a second, pongs included; one is left for the pong."""

STREAMS_PER_CONNECTION_MAX = 1024

NAMES_PER_SUBSCRIBE_MAX = 200
"""436 names in one SUBSCRIBE worked and 437 got no reply (observed, 2020)."""

WEIGHT_PER_MINUTE = 6000
"""What the venue allows an address; how much of it is ours to spend is a setting."""

WEIGHT_IN_FLIGHT = 300
"""Kept free at the end of a minute: what others at the address have asked meanwhile is not known
before the next reply."""

WEIGHTS = {"aggTrades": 4, "historicalTrades": 25, "exchangeInfo": 20, "ping": 1, "time": 1}

PATHS = {StreamKind.AGG_TRADE: "aggTrades", StreamKind.TRADE: "historicalTrades"}
"""Where the past of each kind is asked for."""


CLIENT_FRAMES_WINDOW_S = 1.25
"""A second as the venue counts it, and a quarter for frames that reach it bunched up."""


class SendWindow(msgspec.Struct):
    """At most ``CLIENT_FRAMES_PER_S`` takes in any window of ``CLIENT_FRAMES_WINDOW_S``.

    A token bucket would not do: a full one plus its refill lets through twice its rate in one
    second, and the venue closes with 1008 at the sixth frame.
    """

    taken_at_s: list[float] = msgspec.field(default_factory=list)

    def take(self, now_s: float) -> bool:
        """Take one place if there is one."""
        # The sum, not the difference: in floats only it agrees with ``free_at_s`` to the last bit.
        self.taken_at_s = [
            at_s for at_s in self.taken_at_s if now_s < at_s + CLIENT_FRAMES_WINDOW_S
        ]
        if len(self.taken_at_s) >= CLIENT_FRAMES_PER_S:
            return False
        self.taken_at_s.append(now_s)
        return True

    def free_at_s(self, now_s: float) -> float:
        """Return when ``take`` will succeed; ``now_s`` if it would at once."""
        if len(self.taken_at_s) < CLIENT_FRAMES_PER_S:
            return now_s
        return max(now_s, self.taken_at_s[-CLIENT_FRAMES_PER_S] + CLIENT_FRAMES_WINDOW_S)


CONNECTS_MAX = 300
CONNECTS_WINDOW_S = 300.0


def recent_connects_s(attempts_s: Iterable[float], *, wall_s: float) -> list[float]:
    """Return the attempts that still count, ascending.

    A clock set back leaves attempts in the future: they count as made now. Whoever keeps the list
    keeps this answer, or they would count for as long as the clock needs to catch up.
    """
    return sorted(min(at_s, wall_s) for at_s in attempts_s if wall_s < at_s + CONNECTS_WINDOW_S)


def connect_wait_s(attempts_s: Sequence[float], *, share: float, wall_s: float) -> float:
    """Return how long to wait before the next connection attempt; 0 allows it now.

    Args:
        attempts_s: Earlier attempts, unix time; those of other processes too.
        share: Part of the address's ``CONNECTS_MAX`` that may be used, above 0 to 1.
        wall_s: Now, unix time.
    """
    recent = recent_connects_s(attempts_s, wall_s=wall_s)
    allowed = max(1, int(CONNECTS_MAX * share))
    if len(recent) < allowed:
        return 0.0
    return recent[-allowed] + CONNECTS_WINDOW_S - wall_s


class Breaker(Enum):
    """Whether REST is asked; the values are those of the metric ``circuit_breaker_state``."""

    CLOSED = 0
    OPEN = 1
    """The venue told us to stay away."""
    HALF_OPEN = 2
    """The time it named is over; the next answer decides."""


class WeightBudget(msgspec.Struct):
    """How much REST weight this minute still has: of our share, and of the whole address."""

    limit: int = WEIGHT_PER_MINUTE // 2
    """What we may spend ourselves."""
    minute: int = -1
    used: int = 0
    address_used: int = 0
    """By everybody at this address, as the venue counts."""
    blocked_until_s: float = 0.0
    doubted: bool = False
    """Whether it was blocked and nothing has been answered since."""

    def wait_s(self, *, weight: int, wall_s: float) -> float:
        """Return how long to wait before spending ``weight``; 0 spends it now."""
        if wall_s < self.blocked_until_s:
            return self.blocked_until_s - wall_s
        minute = int(wall_s // 60)
        if minute != self.minute:
            self.minute, self.used, self.address_used = minute, 0, 0
        if (
            self.used + weight > self.limit
            or self.address_used + weight > WEIGHT_PER_MINUTE - WEIGHT_IN_FLIGHT
        ):
            return (minute + 1) * 60 - wall_s
        self.used += weight
        self.address_used += weight
        return 0.0

    def learn(self, *, used_weight: int, wall_s: float) -> None:
        """Take over the counter the venue sent (``X-MBX-USED-WEIGHT-1M``)."""
        if int(wall_s // 60) == self.minute:
            self.address_used = max(self.address_used, used_weight)

    def block(self, *, retry_after_s: float, wall_s: float) -> None:
        """Spend nothing until a 429 or 418 reply's ``Retry-After`` has passed."""
        self.blocked_until_s = max(self.blocked_until_s, wall_s + retry_after_s)
        self.doubted = True

    def answered(self) -> None:
        """The venue answers us."""
        self.doubted = False

    def breaker(self, wall_s: float) -> Breaker:
        """Say whether REST is asked now."""
        if wall_s < self.blocked_until_s:
            return Breaker.OPEN
        return Breaker.HALF_OPEN if self.doubted else Breaker.CLOSED


def backoff_s(*, attempt: int, delay_min_s: float, delay_max_s: float, draw: float) -> float:
    """Return the wait before attempt ``attempt`` (0 is the first retry): exponential, full jitter.

    Args:
        attempt: Failures since data last flowed.
        delay_min_s: Smallest wait; also the base of the doubling.
        delay_max_s: Largest wait.
        draw: A uniform random number in [0, 1).
    """
    ceiling = min(delay_max_s, delay_min_s * 2.0 ** min(attempt, 30))
    return float(delay_min_s + (ceiling - delay_min_s) * draw)
