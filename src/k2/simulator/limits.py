"""The venue's limits, as counters that are told the time.

PURE. Times are seconds of any steady clock, except where ``epoch`` is in the name.
"""

import math
from collections import deque
from enum import Enum

import msgspec

STREAMS_PER_CONNECTION_MAX = 1024


class SlidingCount:
    """At most ``events_max`` events in any window of ``window_s``; remembers no more than that."""

    def __init__(self, *, events_max: int, window_s: float) -> None:
        self._window_s = window_s
        self._recent: deque[float] = deque(maxlen=events_max)
        self._events_max = events_max

    def admit(self, now_s: float) -> bool:
        """Count one event; False if it is one too many. Refused ones count as well."""
        full = len(self._recent) == self._events_max and (
            self._events_max == 0 or now_s - self._recent[0] < self._window_s
        )
        self._recent.append(now_s)
        return not full

    def idle(self, now_s: float) -> bool:
        """True when forgetting this counter changes nothing."""
        return not self._recent or now_s - self._recent[-1] >= self._window_s


class ConnectionAttempts:
    """Connection attempts per address: 300 per 5 minutes on the venue, refused ones included."""

    def __init__(self, *, attempts_max: int, window_s: float) -> None:
        self._attempts_max = attempts_max
        self._window_s = window_s
        self._addresses: dict[str, SlidingCount] = {}
        self._banned_until_s: dict[str, float] = {}

    def admit(self, address: str, now_s: float) -> bool:
        """Count an attempt; False when it must be refused."""
        self._addresses = {a: c for a, c in self._addresses.items() if not c.idle(now_s)}
        self._banned_until_s = {a: u for a, u in self._banned_until_s.items() if u > now_s}
        counter = self._addresses.get(address)
        if counter is None:
            counter = SlidingCount(events_max=self._attempts_max, window_s=self._window_s)
            self._addresses[address] = counter
        return counter.admit(now_s) and address not in self._banned_until_s

    def ban(self, address: str, *, until_s: float) -> None:
        """Refuse every attempt of an address for a while."""
        self._banned_until_s[address] = until_s


class Verdict(Enum):
    """What a weight check says of one request."""

    SERVE = 200
    TOO_MANY = 429
    BANNED = 418


class WeightAnswer(msgspec.Struct, frozen=True):
    """The verdict, the weight used this minute, and how long to stay away."""

    verdict: Verdict
    used_weight: int
    retry_after_s: int
    banned_until_epoch_s: float = 0.0


class _Address(msgspec.Struct):
    minute: int = 0
    used_weight: int = 0
    refusals: int = 0
    bans: int = 0
    banned_until_epoch_s: float = 0.0


class RequestWeights:
    """Weight used per address and minute: 429 over the limit, then 418 with growing bans.

    The venue bans "for repeatedly violating" without saying how often is repeated; here it is
    ``refusals_before_ban`` requests after the first 429 of a minute. Bans double from
    ``ban_first_s`` up to three days.
    """

    BAN_MAX_S = 3 * 86_400.0

    def __init__(
        self, *, weight_max: int, window_s: float, refusals_before_ban: int, ban_first_s: float
    ) -> None:
        self.weight_max = weight_max
        self._window_s = window_s
        self._refusals_before_ban = refusals_before_ban
        self._ban_first_s = ban_first_s
        self._addresses: dict[str, _Address] = {}

    def charge(self, address: str, weight: int, now_epoch_s: float) -> WeightAnswer:
        """Count one request of ``weight`` and say whether to serve it."""
        minute = int(now_epoch_s // self._window_s)
        state = self._addresses.setdefault(address, _Address(minute))
        if state.minute != minute:
            state.minute, state.used_weight, state.refusals = minute, 0, 0
        if state.banned_until_epoch_s > now_epoch_s:
            return self._banned(state, now_epoch_s)
        state.used_weight += weight
        if state.used_weight <= self.weight_max:
            return WeightAnswer(Verdict.SERVE, state.used_weight, 0)
        state.refusals += 1
        if state.refusals > self._refusals_before_ban:
            ban_s = min(self._ban_first_s * 2**state.bans, self.BAN_MAX_S)
            state.bans += 1
            state.refusals = 0
            state.banned_until_epoch_s = now_epoch_s + ban_s
            return self._banned(state, now_epoch_s)
        wait_s = (minute + 1) * self._window_s - now_epoch_s
        return WeightAnswer(Verdict.TOO_MANY, state.used_weight, max(1, math.ceil(wait_s)))

    @staticmethod
    def _banned(state: _Address, now_epoch_s: float) -> WeightAnswer:
        until = state.banned_until_epoch_s
        return WeightAnswer(
            Verdict.BANNED, state.used_weight, max(1, math.ceil(until - now_epoch_s)), until
        )
