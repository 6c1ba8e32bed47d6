"""The server's heartbeat on one connection: pings out, pongs in, a deadline.

PURE: times are seconds of a steady clock, given by the caller.
"""

from enum import Enum


class PongCheck(Enum):
    """Which pongs count as an answer."""

    STRICT = "strict"
    """Only a copy of an outstanding ping's payload, as documented."""
    LENIENT = "lenient"
    """Any pong while a ping is outstanding, as the stream host was once seen to do."""


class Heartbeat:
    """Ping each ``interval_s``; the oldest unanswered ping must be answered in ``timeout_s``.

    A pong answers its ping and all older ones. Any other pong changes nothing.

    Source: fact sheet section 3 (Binance docs: 20 s, 60 s, copy of the payload, unsolicited pongs
    do not count; checked 2026-11-21). From when the minute runs is this sheet's inference.
    """

    def __init__(
        self, *, now_s: float, interval_s: float, timeout_s: float, check: PongCheck
    ) -> None:
        self._interval_s = interval_s
        self._timeout_s = timeout_s
        self._check = check
        self._next_ping_s = now_s + interval_s
        self._outstanding: list[tuple[float, bytes]] = []

    def ping_due(self, now_s: float, payload: bytes) -> bool:
        """True if ``payload`` must be sent as a ping now; it is then outstanding."""
        if now_s < self._next_ping_s:
            return False
        self._next_ping_s = max(self._next_ping_s + self._interval_s, now_s)
        self._outstanding.append((now_s, payload))
        return True

    def pong(self, payload: bytes) -> bool:
        """Take a pong; True if it answered a ping."""
        if self._check is PongCheck.LENIENT:
            answered = bool(self._outstanding)
            self._outstanding.clear()
            return answered
        for place, (_, outstanding) in enumerate(self._outstanding):
            if outstanding == payload:
                del self._outstanding[: place + 1]
                return True
        return False

    def expired(self, now_s: float) -> bool:
        """True when the oldest unanswered ping has waited too long."""
        return bool(self._outstanding) and now_s - self._outstanding[0][0] >= self._timeout_s
