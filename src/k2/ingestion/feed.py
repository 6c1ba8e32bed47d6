"""Drives one leg: performs what it decides on real sockets, tells it and the wiring what came."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

import structlog

from k2.binance.frames import ErrorReply, Reply, ServerShutdown
from k2.binance.leg import Leg, LegAction, Open, Replaced
from k2.binance.session import Close, Ping, Send, Session, State
from k2.binance.websocket import Socket, SocketEvents
from k2.errors import RetryError
from k2.ingestion.host import Host

SLEPT_S = 2.0
"""Waking later than planned by more than this means that we did not run, not that they died."""

Connector = Callable[[str, SocketEvents], Awaitable[Socket]]

_log = structlog.get_logger()


class FeedEvents(Protocol):
    """What the wiring wants to hear of its legs."""

    def frame(
        self, leg: Leg, session: Session, payload: bytes, recv_ts_ns: int
    ) -> Reply | ErrorReply | ServerShutdown | None:
        """Take one text frame; give back what only the session can use."""

    def connected(self, leg: Leg) -> None:
        """A socket is open."""

    def live(self, leg: Leg, session: Session) -> None:
        """Every stream of a connection is acknowledged and listed."""

    def pinged(self, leg: Leg) -> None:
        """The server sent a PING (already answered)."""

    def ponged(self, leg: Leg) -> None:
        """The server answered our PING."""

    def replaced(self, leg: Leg, action: Replaced) -> None:
        """A newcomer carries the leg now."""

    def disconnected(self, leg: Leg, session: Session, reason: str) -> None:
        """A socket is gone; ``reason`` is a label of contract R003, ``shutdown`` when asked."""

    def unreachable(self, leg: Leg, problem: RetryError) -> None:
        """A socket could not be opened."""


class Feed:
    """One leg's sockets, until ``stop``."""

    def __init__(
        self,
        leg: Leg,
        url: str,
        events: FeedEvents,
        *,
        connect: Connector,
        may_connect: Callable[[], Awaitable[None]],
        host: Host,
    ) -> None:
        """Join a leg with its address; ``may_connect`` waits for the venue's connect limit."""
        self.leg = leg
        self.events = events
        self.host = host
        self._url = url
        self._connect = connect
        self._may_connect = may_connect
        self._lines: dict[Session, _Line] = {}
        self._changed = asyncio.Event()
        self._waiting: set[asyncio.Task[None]] = set()
        """Openings that wait for their turn, for minutes perhaps."""
        self._group = asyncio.TaskGroup()

    async def run(self) -> None:
        """Keep the leg supplied until ``stop`` was called and its sockets are closed.

        Raises:
            Exception: Whatever the wiring raised on a frame: that is a bug, not the peer's doing.
        """
        try:
            async with self._group:
                await self._tick_until_ended()
        finally:
            for line in list(self._lines.values()):
                if line.socket is not None:
                    line.socket.abort()

    def stop(self) -> None:
        """Close with 1000 and do not come back."""
        self.perform(self.leg.stop(self.host.monotonic_s()))
        for task in self._waiting:
            task.cancel()

    def perform(self, actions: list[LegAction]) -> None:
        """Do what the leg decided."""
        for session, action in actions:
            if isinstance(action, Open):
                self._group.create_task(self._open(session), name=f"leg {self.leg.name}")
            elif isinstance(action, Replaced):
                self.events.replaced(self.leg, action)
            elif (line := self._lines.get(session)) is not None and line.socket is not None:
                if isinstance(action, Send):
                    line.socket.send_text(action.text)
                elif isinstance(action, Ping):
                    line.socket.send_ping()
                elif isinstance(action, Close):
                    line.socket.close(action.code)
                else:
                    line.socket.abort()
        self._changed.set()

    def forget(self, line: "_Line") -> None:
        """A socket is gone."""
        self._lines.pop(line.session, None)
        self.leg.closed(line.session, self.host.monotonic_s())
        ended = "connection_closed" if line.said_goodbye else "unexpected_error"
        reason = line.session.close_reason or ended
        self.events.disconnected(self.leg, line.session, reason)
        self._changed.set()

    async def _tick_until_ended(self) -> None:
        due_s = self.host.monotonic_s()
        while not self.leg.ended:
            now_s = self.host.monotonic_s()
            if now_s - due_s > SLEPT_S:
                self.leg.slept(now_s)
            self.perform(self.leg.tick(now_s))
            due_s = self.leg.next_due_s(now_s)
            await self._wait(due_s - now_s)
            due_s = min(due_s, self.host.monotonic_s())

    async def _open(self, session: Session) -> None:
        line = _Line(self, session)
        try:
            await self._its_turn()
            if session.state is State.CLOSING:  # stopped while it waited
                return
            self._lines[session] = line
            line.socket = socket = await self._connect(self._url, line)
        except RetryError as exc:
            self._lines.pop(session, None)
            self.events.unreachable(self.leg, exc)
        else:
            if not line.gone:
                self.events.connected(self.leg)
                self.perform(self.leg.opened(session, self.host.monotonic_s()))
            await socket.wait_ended()
        finally:
            # Of a socket that was open the leg has heard by now; of any other it hears here.
            self.leg.closed(session, self.host.monotonic_s())
            self._changed.set()

    async def _its_turn(self) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 called within one
        self._waiting.add(task)
        try:
            await self._may_connect()
        finally:
            self._waiting.discard(task)

    async def _wait(self, seconds: float) -> None:
        self._changed.clear()
        try:
            async with asyncio.timeout(max(0.0, seconds) if seconds != float("inf") else None):
                await self._changed.wait()
        except TimeoutError:
            return


class _Line:
    """One socket's events on their way to its session."""

    def __init__(self, feed: Feed, session: Session) -> None:
        self.session = session
        self.socket: Socket | None = None
        self.gone = False
        self.said_goodbye = False
        """Whether the server closed it: a socket that just ends was lost."""
        self._feed = feed

    def text(self, payload: bytes, recv_ts_ns: int) -> None:
        feed = self._feed
        message = feed.events.frame(feed.leg, self.session, payload, recv_ts_ns)
        if message is None:
            return
        now_s = feed.host.monotonic_s()
        if isinstance(message, ServerShutdown):
            _log.info("server_leaves", leg=feed.leg.name)
            feed.leg.server_leaving(self.session, now_s)
            feed.perform([])
            return
        if isinstance(message, ErrorReply):
            _log.warning("subscription_refused", code=message.code, text=message.message[:200])
        was = self.session.state
        feed.perform(feed.leg.replied(self.session, message, now_s))
        if self.session.state is State.LIVE and was is not State.LIVE:
            feed.events.live(feed.leg, self.session)

    def pinged(self) -> None:
        self.session.last_ping_s = self._feed.host.monotonic_s()
        self._feed.events.pinged(self._feed.leg)

    def ponged(self) -> None:
        self.session.ponged()
        self._feed.events.ponged(self._feed.leg)

    def refused(self, code: int, text: str) -> None:
        self.said_goodbye = True
        _log.info(
            "Connection closed by server", leg=self._feed.leg.name, code=code, text=text[:120]
        )

    def ended(self) -> None:
        self.gone = True
        self._feed.forget(self)
