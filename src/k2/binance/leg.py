"""PURE: one leg, an unbroken supply of trades over one connection after another.

A leg keeps one connection and replaces it **make before break**: the newcomer is opened, has
subscribed and has overlapped with the old one on every symbol, or a bound has passed, before the
old one is closed with 1000. What ended without a successor is opened again after a growing wait,
for ever.
"""

from collections.abc import Callable, Iterable, Mapping

import msgspec

from k2.binance.frames import ErrorReply, Reply
from k2.binance.limits import STREAMS_PER_CONNECTION_MAX, backoff_s
from k2.binance.session import Action, Session, SessionLimits, State
from k2.errors import StopError
from k2.market import StreamKind

OVERLAP_MAX_S = 30.0
"""A newcomer that is live for so long replaces the old one, whatever quiet symbols have shown."""

OVERLAP_LOOK_S = 0.1
JITTER = 0.1
SESSIONS_MAX = 3
"""The current one, a newcomer, and one that is leaving."""

SILENT_AFTER_S = 10.0
"""An id heard elsewhere and not here for so long makes its stream here a deaf one."""

SCHEDULED = "scheduled_rotation"
MANUAL = "manual_rotation"


class Open(msgspec.Struct, frozen=True):
    """Open a WebSocket for this session."""


class Replaced(msgspec.Struct, frozen=True):
    """The newcomer carries the leg now; ``reason`` is a label of contract R003 or R012."""

    reason: str
    overlapped: bool
    """False when a bound ended the wait for symbols that stayed quiet."""


LegAction = tuple[Session, Action | Open | Replaced]


class LegLimits(msgspec.Struct, frozen=True):
    """The settings of a leg, in seconds."""

    delay_min_s: float = 1.0
    delay_max_s: float = 60.0
    connection_age_max_s: float = 14_400.0
    session: SessionLimits = SessionLimits()


class Leg:
    """One leg's state. All times are seconds of one monotonic clock, given by the caller."""

    def __init__(
        self,
        name: str,
        symbols: Iterable[str],
        kind: StreamKind,
        limits: LegLimits,
        *,
        first_age_s: float,
        draw: Callable[[], float],
    ) -> None:
        """Prepare a leg of at most ``STREAMS_PER_CONNECTION_MAX`` symbols.

        Args:
            name: Label of the leg, such as ``a``.
            symbols: What it carries.
            kind: Which stream of theirs.
            limits: Its settings.
            first_age_s: Age at which its first connection is replaced, so that legs differ.
            draw: Gives uniform random numbers in [0, 1): jitter of rotation and backoff.
        """
        self.name = name
        self.symbols = list(symbols)
        self.current: Session | None = None
        self.newcomer: Session | None = None
        self.leaving: list[Session] = []
        self.attempt = 0
        """Failures since data last flowed."""
        self.retry_at_s = 0.0
        self.stopped = False
        self._kind = kind
        self._limits = limits
        self._draw = draw
        self._next_age_s = first_age_s
        self._rotate_at_s = float("inf")
        self._rotate_reason = SCHEDULED
        self._lacking: dict[str, tuple[int, float]] = {}
        """Symbol to an id heard elsewhere and not here, and since when."""
        self._check_size(self.symbols)

    # What happens.

    def tick(self, now_s: float) -> list[LegAction]:
        """Do what is due on every connection; open one, replace one."""
        actions: list[LegAction] = []
        for session in self.sessions():
            actions += self._of(session, session.tick(now_s))
        for ending in (self.current, self.newcomer):
            if ending is not None and ending.state is State.CLOSING and not self.stopped:
                self.closed(ending, now_s)  # its successor need not wait for the handshake
                self.leaving.append(ending)
        if (
            self.current is not None
            and self.newcomer is None
            and self.current.heartbeat_missing(now_s)
        ):
            self.rotate("pong_timeout", now_s)
        if self._opens(now_s):
            self.newcomer = Session(self.symbols, self._kind, self._limits.session)
            actions.append((self.newcomer, Open()))
        elif self.newcomer is not None and self.newcomer.state is State.LIVE:
            actions += self._replace(now_s)
        return actions

    def opened(self, session: Session, now_s: float) -> list[LegAction]:
        """The handshake of a session succeeded."""
        actions = self._of(session, session.opened(now_s))
        if session is self.newcomer and self.current is None:
            self._promote(now_s)
        return actions

    def replied(
        self, session: Session, message: Reply | ErrorReply, now_s: float
    ) -> list[LegAction]:
        """Take one answer to a control message."""
        return self._of(session, session.replied(message, now_s))

    def server_leaving(self, session: Session, now_s: float) -> None:
        """The server announced its shutdown: replace its connection now."""
        if session is self.current:
            self.rotate("server_shutdown", now_s)

    def closed(self, session: Session, now_s: float) -> None:
        """A connection ended or could not be opened, however that came about."""
        if session in self.leaving:
            self.leaving.remove(session)
            return
        if session is self.newcomer:
            self.newcomer = None
        elif session is self.current:
            self.current = None
            self._rotate_at_s = float("inf")
            if self.newcomer is not None and self.newcomer.opened_at_s:
                self._promote(now_s)
        else:
            return
        # A server that accepts and drops at once is backed off from like one that refuses.
        if session.last_trade_s:
            self.attempt = 0
        self.retry_at_s = now_s + backoff_s(
            attempt=self.attempt,
            delay_min_s=self._limits.delay_min_s,
            delay_max_s=self._limits.delay_max_s,
            draw=self._draw(),
        )
        self.attempt += 1

    def rotate(self, reason: str, now_s: float) -> bool:
        """Replace the current connection as soon as a newcomer can take its place.

        Returns:
            False if there is none to replace, or it is being replaced already.
        """
        if self.stopped or self.current is None or self.newcomer is not None:
            return False
        if now_s >= self._rotate_at_s:
            return False
        self._rotate_at_s = now_s
        self._rotate_reason = reason
        return True

    def carry(self, symbols: Iterable[str], now_s: float) -> list[LegAction]:
        """Carry these symbols from now on."""
        wanted = list(symbols)
        self._check_size(wanted)
        self.symbols = wanted
        actions: list[LegAction] = []
        for session in (self.current, self.newcomer):
            if session is not None:
                actions += self._of(session, session.want(wanted, now_s))
        return actions

    def notice(self, heard: Mapping[str, int], now_s: float) -> list[str]:
        """Return symbols whose stream here was acknowledged and is deaf, and replace it.

        Args:
            heard: The newest id of each symbol that any source has shown.
            now_s: Now.
        """
        session = self.current
        if session is None or session.state is not State.LIVE or self.newcomer is not None:
            self._lacking.clear()
            return []
        # The same id has to be lacking all the time: a leg that merely trails lacks another one
        # at every look.
        lacking = {}
        for symbol in self.symbols:
            known = self._lacking.get(symbol)
            if known is not None and session.lacks(symbol, known[0]):
                lacking[symbol] = known
            elif session.lacks(symbol, newest := heard.get(symbol, -1)):
                lacking[symbol] = (newest, now_s)
        self._lacking = lacking
        deaf = [s for s, (_, since_s) in lacking.items() if now_s - since_s >= SILENT_AFTER_S]
        if deaf:
            self._lacking.clear()
            self.rotate("health_check_timeout", now_s)
        return deaf

    def slept(self, now_s: float) -> None:
        """We were not running: silence until now was ours, not the peers'."""
        for session in self.sessions():
            session.slept(now_s)

    def stop(self, now_s: float) -> list[LegAction]:
        """End for good."""
        self.stopped = True
        return [
            (session, action)
            for session in self.sessions()
            for action in session.close("shutdown", now_s)
        ]

    # What can be asked.

    @property
    def live(self) -> bool:
        """Whether everything published now arrives here, as far as the server says."""
        return any(session.carries for session in self.sessions())

    @property
    def ended(self) -> bool:
        """Whether a stopped leg has no connection left."""
        return self.stopped and not self.sessions()

    @property
    def rotates_at_s(self) -> float:
        """When the current connection is to be replaced; infinite without one."""
        return self._rotate_at_s

    def age_s(self, now_s: float) -> float:
        """Return the age of the current connection; 0 without one."""
        return now_s - self.current.opened_at_s if self.current is not None else 0.0

    def next_due_s(self, now_s: float) -> float:
        """Return when ``tick`` will next have something to do, unless something happens."""
        due_s = min((s.next_due_s(now_s) for s in self.sessions()), default=float("inf"))
        if self.stopped:
            return due_s
        if self.newcomer is not None:
            if self.newcomer.state is State.LIVE:
                due_s = min(due_s, now_s + OVERLAP_LOOK_S, self.newcomer.live_at_s + OVERLAP_MAX_S)
            return due_s
        if self._full:
            return due_s
        opens_s = self.retry_at_s
        if self.current is not None:
            opens_s = max(opens_s, min(self._rotate_at_s, self.current.heartbeat_missing_at_s))
        return min(due_s, opens_s)

    # How.

    @property
    def _full(self) -> bool:
        """Whether connections that take their time to leave keep the next one from opening."""
        return len(self.sessions()) >= SESSIONS_MAX

    def sessions(self) -> list[Session]:
        """Return the connections there are, those on their way out too."""
        return [s for s in (self.current, self.newcomer, *self.leaving) if s is not None]

    def _opens(self, now_s: float) -> bool:
        if self.stopped or self.newcomer is not None or now_s < self.retry_at_s or self._full:
            return False
        return self.current is None or now_s >= self._rotate_at_s

    def _promote(self, now_s: float) -> None:
        self.current, self.newcomer = self.newcomer, None
        age_s = min(self._next_age_s, self._limits.connection_age_max_s)
        self._next_age_s = self._limits.connection_age_max_s
        self._rotate_at_s = now_s + age_s * (1 - JITTER * self._draw())
        self._rotate_reason = SCHEDULED
        self._lacking.clear()  # what the one before did not hear is not its fault

    def _replace(self, now_s: float) -> list[LegAction]:
        old, newcomer = self.current, self.newcomer
        if old is None or newcomer is None:
            return []
        carried = set(self.symbols)
        overlapped = all(
            newcomer.first_ids.get(symbol, last_id + 2) <= last_id + 1
            for symbol, last_id in old.last_ids.items()
            if symbol in carried
        )
        if not overlapped and now_s < newcomer.live_at_s + OVERLAP_MAX_S:
            return []
        reason = self._rotate_reason
        self.attempt = 0
        old.replaced = True
        self.leaving.append(old)
        self._promote(now_s)
        closing = self._of(old, old.close(reason, now_s))
        return [(newcomer, Replaced(reason, overlapped)), *closing]

    @staticmethod
    def _of(session: Session, actions: list[Action]) -> list[LegAction]:
        return [(session, action) for action in actions]

    @staticmethod
    def _check_size(symbols: list[str]) -> None:
        if len(symbols) > STREAMS_PER_CONNECTION_MAX:
            raise StopError(
                f"{len(symbols)} streams on one connection, at most {STREAMS_PER_CONNECTION_MAX}"
            )
