"""PURE: how long a symbol may be silent before that is news.

A busy symbol is news after seconds, a thin one after hours: the model knows each by how it has
traded so far. Trading comes in bursts, so the longest recent silence counts beside the mean.
"""

ALLOWED_MIN_S = 5.0
MEAN_TIMES = 20
LONGEST_TIMES = 2
TRADES_MIN = 20
"""A symbol seen trading less often is not known yet, and never news."""

_SMOOTHING = 1 / 200
_FORGETTING_S = 7200.0
"""A long silence is remembered for about so long."""


class Silence:
    """One symbol's rhythm. Times are seconds of one monotonic clock."""

    __slots__ = ("_longest_s", "_mean_s", "_trades", "last_s")

    def __init__(self, now_s: float) -> None:
        """Begin to listen."""
        self.last_s = now_s
        self._mean_s = 0.0
        self._longest_s = 0.0
        self._trades = 0

    def traded(self, now_s: float) -> None:
        """Take in a trade."""
        silent_s = now_s - self.last_s
        self.last_s = now_s
        self._trades += 1
        if self._trades == 1:
            return  # what came before it is when we began to listen
        share = max(_SMOOTHING, 1 / (self._trades - 1))
        self._mean_s += (silent_s - self._mean_s) * share
        faded_s = self._longest_s * max(0.0, 1 - silent_s / _FORGETTING_S)
        self._longest_s = max(silent_s, faded_s)

    def resumed(self, now_s: float) -> None:
        """We hear again: the silence until now was ours, not the symbol's."""
        self.last_s = now_s

    @property
    def allowed_s(self) -> float:
        """How long a silence is nothing special; infinite while the rhythm is not known."""
        if self._trades < TRADES_MIN:
            return float("inf")
        return max(ALLOWED_MIN_S, MEAN_TIMES * self._mean_s, LONGEST_TIMES * self._longest_s)

    def overdue(self, now_s: float) -> bool:
        """Say whether a trade should have come by now."""
        return now_s - self.last_s > self.allowed_s
