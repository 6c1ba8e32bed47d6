"""PURE: the venue's limits as arithmetic on a clock that the caller reads.

Source: fact sheet section 2 and 6.4 (official docs, checked 2026-11-21).
"""

import msgspec

CLIENT_FRAMES_PER_S = 4
"""The venue allows 5 a second, pongs included; one is left for the pong."""

STREAMS_PER_CONNECTION_MAX = 1024

NAMES_PER_SUBSCRIBE_MAX = 200
"""436 names in one SUBSCRIBE worked and 437 got no reply (observed, 2020)."""

WEIGHT_PER_MINUTE = 3000
"""Half of the venue's 6000: other programs share the address."""

WEIGHTS = {"aggTrades": 4, "historicalTrades": 25, "exchangeInfo": 20, "ping": 1, "time": 1}


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
        self.taken_at_s = [
            at_s for at_s in self.taken_at_s if now_s - at_s < CLIENT_FRAMES_WINDOW_S
        ]
        if len(self.taken_at_s) >= CLIENT_FRAMES_PER_S:
            return False
        self.taken_at_s.append(now_s)
        return True


class WeightBudget(msgspec.Struct):
    """How much REST weight this minute still has, by the venue's own counter."""

    limit: int = WEIGHT_PER_MINUTE
    minute: int = -1
    used: int = 0
    blocked_until_s: float = 0.0

    def wait_s(self, *, weight: int, wall_s: float) -> float:
        """Return how long to wait before spending ``weight``; 0 spends it now."""
        if wall_s < self.blocked_until_s:
            return self.blocked_until_s - wall_s
        minute = int(wall_s // 60)
        if minute != self.minute:
            self.minute, self.used = minute, 0
        if self.used + weight > self.limit:
            return (minute + 1) * 60 - wall_s
        self.used += weight
        return 0.0

    def learn(self, *, used_weight: int, wall_s: float) -> None:
        """Take over the counter the venue sent (``X-MBX-USED-WEIGHT-1M``)."""
        if int(wall_s // 60) == self.minute:
            self.used = max(self.used, used_weight)

    def block(self, *, retry_after_s: float, wall_s: float) -> None:
        """Spend nothing until a 429 or 418 reply's ``Retry-After`` has passed."""
        self.blocked_until_s = max(self.blocked_until_s, wall_s + retry_after_s)


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
