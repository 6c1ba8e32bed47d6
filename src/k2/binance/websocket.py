"""The shell round picows: performs what the session decides, hands every text frame on.

It decides nothing itself. Frames are handed over inside the read callback, so nothing queues
between the socket and the tape; the server's PINGs are answered by picows with their own payload.
"""

import asyncio
import ssl
import time
from collections.abc import Callable
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import structlog
from picows import (
    WSCloseCode,
    WSError,
    WSFrame,
    WSListener,
    WSMsgType,
    WSTransport,
    ws_connect,
)

from k2.binance.frames import ErrorReply, Reply, ServerShutdown
from k2.binance.session import Action, Close, Connect, Ping, Send, Session, State

TICK_S = 0.05
FRAME_SIZE_MAX_BYTES = 1 << 20
HANDSHAKE_TIMEOUT_S = 5.0
CLOSE_TIMEOUT_S = 2.0
NO_CODE = 1005  # RFC 6455, 7.4.1: the CLOSE frame carried none

_log = structlog.get_logger()


class FeedEvents:
    """What the wiring wants to hear of; override what matters."""

    def frame(self, payload: bytes, recv_ts_ns: int) -> Reply | ErrorReply | ServerShutdown | None:
        """Take one text frame; give back what only the session can use."""
        raise NotImplementedError

    def connected(self) -> None:
        """The socket is open."""

    def live(self) -> None:
        """Every stream is acknowledged and listed."""

    def pinged(self) -> None:
        """The server sent a PING (already answered)."""

    def disconnected(self, reason: str) -> None:
        """The socket is gone; ``reason`` is a label of contract R003, ``shutdown`` when asked."""

    def unreachable(self, problem: str) -> None:
        """The socket could not be opened."""


def feed_url(ws_url: str) -> str:
    """Return the address with times asked for in microseconds (``timeUnit``, section 1.2)."""
    parts = urlsplit(ws_url)
    query = [(k, v) for k, v in parse_qsl(parts.query) if k != "timeUnit"]
    path = parts.path if parts.path not in ("", "/") else "/ws"
    text = urlencode([*query, ("timeUnit", "MICROSECOND")], safe="/@!")
    return urlunsplit((parts.scheme, parts.netloc, path, text, ""))


class Feed:
    """One connection's life, reconnects included, until ``stop``."""

    def __init__(
        self, url: str, session: Session, events: FeedEvents, *, draw: Callable[[], float]
    ) -> None:
        """Prepare; ``draw`` gives the random numbers of the backoff."""
        self.session = session
        self._url = feed_url(url)
        self._events = events
        self._draw = draw
        self._transport: WSTransport | None = None
        self._close_reason = ""
        self._closing_at_s: float | None = None
        self._ended: WSTransport | None = None

    async def run(self) -> None:
        """Keep the session connected until ``stop`` was called and the socket is closed.

        Raises:
            Exception: Whatever the wiring raised on a frame: that is a bug, not the peer's doing.
        """
        while self.session.state is not State.STOPPED or self._transport is not None:
            now_s = time.monotonic()
            if self._closing_at_s is not None and now_s - self._closing_at_s > CLOSE_TIMEOUT_S:
                self._abort()
            for action in self.session.tick(now_s):
                await self._perform(action)
            await self._raise_what_ended_it()
            await asyncio.sleep(TICK_S)

    def stop(self) -> None:
        """Close with 1000 and do not come back."""
        self._do(self.session.stop())

    async def _perform(self, action: Action) -> None:
        if isinstance(action, Connect):
            await self._connect()
        else:
            self._do([action])

    async def _raise_what_ended_it(self) -> None:
        ended, self._ended = self._ended, None
        if ended is None:
            return
        try:
            await ended.wait_disconnected()
        except WSError as exc:
            _log.warning("Connection broke the protocol", reason=_first_line(exc))

    def _abort(self) -> None:
        """Drop a socket whose peer does not take part in the closing."""
        if self._transport is not None:
            self._transport.disconnect(graceful=False)

    async def _connect(self) -> None:
        self._close_reason = ""
        self._closing_at_s = None
        context = ssl.create_default_context() if self._url.startswith("wss:") else None
        try:
            await ws_connect(
                lambda: _Listener(self),
                self._url,
                ssl_context=context,
                websocket_handshake_timeout=HANDSHAKE_TIMEOUT_S,
                max_frame_size=FRAME_SIZE_MAX_BYTES,
            )
        except (WSError, OSError, TimeoutError) as exc:
            self._events.unreachable(f"{self._url.split('?')[0]}: {_first_line(exc)}")
            self.session.closed(time.monotonic(), draw=self._draw())

    def _do(self, actions: list[Action]) -> None:
        transport = self._transport
        if transport is None:
            return
        for action in actions:
            if isinstance(action, Send):
                transport.send(WSMsgType.TEXT, action.text.encode())
            elif isinstance(action, Ping):
                transport.send_ping()
            elif isinstance(action, Close) and self._closing_at_s is None:
                self._closing_at_s = time.monotonic()
                self._close_reason = self._close_reason or action.reason
                transport.send_close(WSCloseCode(action.code))
                transport.disconnect()

    # What the listener calls.

    def opened(self, transport: WSTransport) -> None:
        """Take the open socket."""
        self._transport = transport
        self._events.connected()
        self._do(self.session.opened(time.monotonic()))

    def text(self, payload: bytes, recv_ts_ns: int) -> None:
        """Hand one text frame on; let the session see what is not a trade."""
        message = self._events.frame(payload, recv_ts_ns)
        if message is None:
            return
        was = self.session.state
        if isinstance(message, ServerShutdown):
            self._do(self.session.server_leaving())
            return
        if isinstance(message, ErrorReply):
            _log.warning("subscription_refused", code=message.code, text=message.message[:200])
        self._do(self.session.replied(message, time.monotonic()))
        if self.session.state is State.LIVE and was is not State.LIVE:
            self._events.live()

    def pinged(self) -> None:
        """Pass on that the server's heartbeat arrived."""
        self.session.last_ping_s = time.monotonic()
        self._events.pinged()

    def refused(self, code: int, text: str) -> None:
        """Remember what the server's CLOSE frame said."""
        self._close_reason = self._close_reason or "connection_closed"
        _log.info("Connection closed by server", code=code, text=text[:120])

    def ended(self) -> None:
        """The socket is gone, whoever closed it."""
        self._ended, self._transport = self._transport, None
        self._closing_at_s = None
        self.session.closed(time.monotonic(), draw=self._draw())
        self._events.disconnected(self._close_reason or "connection_closed")


class _Listener(WSListener):
    def __init__(self, feed: Feed) -> None:
        super().__init__()
        self._feed = feed
        self._parts = bytearray()

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._feed.opened(transport)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        recv_ts_ns = time.time_ns()
        kind = frame.msg_type
        if kind == WSMsgType.TEXT and frame.fin:
            self._feed.text(frame.get_payload_as_bytes(), recv_ts_ns)
        elif kind in (WSMsgType.TEXT, WSMsgType.CONTINUATION):
            self._parts += frame.get_payload_as_bytes()
            if len(self._parts) > FRAME_SIZE_MAX_BYTES:
                transport.disconnect(graceful=False)
            elif frame.fin:
                whole, self._parts = bytes(self._parts), bytearray()
                self._feed.text(whole, recv_ts_ns)
        elif kind == WSMsgType.PING:
            self._feed.pinged()
        elif kind == WSMsgType.CLOSE:
            said = frame.get_payload_as_bytes()
            code = int.from_bytes(said[:2], "big") if len(said) >= 2 else NO_CODE
            self._feed.refused(code, said[2:].decode("utf-8", errors="replace"))
            transport.disconnect()

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        del transport
        self._feed.ended()


def _first_line(exc: BaseException) -> str:
    lines = str(exc).strip().splitlines()
    return lines[0][:200] if lines else type(exc).__name__
