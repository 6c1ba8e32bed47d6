"""The shell round picows: opens one WebSocket, hands on what comes, decides nothing.

Frames are handed over inside the read callback, so nothing queues between the socket and the
tape. The server's PINGs are answered there too, with their own payload: picows would answer them
by itself, but then it tells nobody that one came.
"""

import asyncio
import socket
import ssl
import time
from typing import Protocol
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import structlog
from picows import (
    WSCloseCode,
    WSError,
    WSFrame,
    WSHandshakeError,
    WSListener,
    WSMsgType,
    WSTransport,
    ws_connect,
)

from k2.binance.redirects import REDIRECTS, redirect_told
from k2.errors import RetryError

FRAME_SIZE_MAX_BYTES = 1 << 20
HANDSHAKE_TIMEOUT_S = 5.0
CONNECT_TIMEOUT_S = 10.0
NO_CODE = 1005  # RFC 6455, 7.4.1: the CLOSE frame carried none

_log = structlog.get_logger()


class SocketEvents(Protocol):
    """Whoever wants to hear of a socket. ``ended`` comes once, and last."""

    def text(self, payload: bytes, recv_ts_ns: int) -> None:
        """Take one text frame; the time is our clock's, ns since the epoch."""

    def pinged(self) -> None:
        """The server sent a PING (already answered)."""

    def ponged(self) -> None:
        """The server answered our PING."""

    def refused(self, code: int, text: str) -> None:
        """The server's CLOSE frame said this."""

    def ended(self) -> None:
        """The socket is gone, whoever closed it."""


class Socket(Protocol):
    """An open WebSocket."""

    def send_text(self, text: str) -> None:
        """Send one text frame."""

    def send_ping(self) -> None:
        """Send one PING control frame."""

    def close(self, code: int) -> None:
        """Begin the closing handshake."""

    def abort(self) -> None:
        """Drop the connection."""

    async def wait_ended(self) -> None:
        """Wait for the end; raise what our own code raised on a frame: that is a bug."""


class ConnectError(RetryError):
    """A socket could not be opened; ``kind`` says how far it came (contract R002)."""

    def __init__(self, problem: str, *, url: str, kind: str) -> None:
        """Say which address, without its query."""
        super().__init__(f"{url.split('?', maxsplit=1)[0]}: {problem}")
        self.kind = kind


def feed_url(ws_url: str) -> str:
    """Return the address with times asked for in microseconds (``timeUnit``, section 1.2)."""
    parts = urlsplit(ws_url)
    query = [(k, v) for k, v in parse_qsl(parts.query) if k != "timeUnit"]
    path = parts.path if parts.path not in ("", "/") else "/ws"
    text = urlencode([*query, ("timeUnit", "MICROSECOND")], safe="/@!")
    return urlunsplit((parts.scheme, parts.netloc, path, text, ""))


async def connect(url: str, events: SocketEvents, *, tls: ssl.SSLContext | None = None) -> Socket:
    """Open a WebSocket; its events go to ``events``. ``tls`` says whom to believe.

    A redirect is not followed.

    Raises:
        RetryError: If it cannot be opened; nothing was, then.
    """
    context = (tls or ssl.create_default_context()) if url.startswith("wss:") else None
    listener = _Listener(events)
    try:
        # The library bounds the upgrade, not the connecting before it.
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            transport, _ = await ws_connect(
                lambda: listener,
                feed_url(url),
                ssl_context=context,
                websocket_handshake_timeout=HANDSHAKE_TIMEOUT_S,
                max_frame_size=FRAME_SIZE_MAX_BYTES,
                enable_auto_pong=False,
                max_redirects=0,
            )
    except (WSError, OSError, TimeoutError, ValueError) as exc:  # ValueError: no address at all
        raise ConnectError(_problem(exc), url=url, kind=_kind(exc)) from exc
    if not listener.connected:  # picows 2.3 returns such a transport, and never says that it ended
        raise ConnectError("closed during the handshake", url=url, kind="handshake")
    return _PicowsSocket(transport)


def _problem(exc: Exception) -> str:
    response = exc.response if isinstance(exc, WSHandshakeError) else None
    if response is not None and response.status in REDIRECTS:
        told = redirect_told(response.headers.get("Location", ""))
        return f"answered {int(response.status)}: {told}"
    return _first_line(exc)


def _kind(exc: Exception) -> str:
    if isinstance(exc, TimeoutError):
        return "timeout"
    if isinstance(exc, ssl.SSLError):
        return "tls"
    if isinstance(exc, socket.gaierror):
        return "dns"
    return "refused" if isinstance(exc, OSError) else "handshake"


class _PicowsSocket:
    def __init__(self, transport: WSTransport) -> None:
        self._transport = transport

    def send_text(self, text: str) -> None:
        self._transport.send(WSMsgType.TEXT, text.encode())

    def send_ping(self) -> None:
        self._transport.send_ping()

    def close(self, code: int) -> None:
        self._transport.send_close(WSCloseCode(code))
        self._transport.disconnect()

    def abort(self) -> None:
        self._transport.disconnect(graceful=False)

    async def wait_ended(self) -> None:
        try:
            await self._transport.wait_disconnected()
        except WSError as exc:
            _log.warning("Connection broke the protocol", reason=_first_line(exc))


class _Listener(WSListener):
    def __init__(self, events: SocketEvents) -> None:
        super().__init__()
        self.connected = False
        self._events = events
        self._parts = bytearray()

    def on_ws_connected(self, transport: WSTransport) -> None:
        del transport
        self.connected = True

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        recv_ts_ns = time.time_ns()
        kind = frame.msg_type
        if kind == WSMsgType.TEXT and frame.fin:
            self._events.text(frame.get_payload_as_bytes(), recv_ts_ns)
        elif kind in (WSMsgType.TEXT, WSMsgType.CONTINUATION):
            self._parts += frame.get_payload_as_bytes()
            if len(self._parts) > FRAME_SIZE_MAX_BYTES:
                transport.disconnect(graceful=False)
            elif frame.fin:
                whole, self._parts = bytes(self._parts), bytearray()
                self._events.text(whole, recv_ts_ns)
        elif kind == WSMsgType.PING:
            transport.send_pong(frame.get_payload_as_bytes())
            self._events.pinged()
        elif kind == WSMsgType.PONG:
            self._events.ponged()
        elif kind == WSMsgType.CLOSE:
            said = frame.get_payload_as_bytes()
            code = int.from_bytes(said[:2], "big") if len(said) >= 2 else NO_CODE
            self._events.refused(code, said[2:].decode("utf-8", errors="replace"))
            transport.disconnect()

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        del transport
        self._events.ended()


def _first_line(exc: BaseException) -> str:
    lines = str(exc).strip().splitlines()
    return lines[0][:200] if lines else type(exc).__name__
