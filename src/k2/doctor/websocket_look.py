"""The shell that opens a stream, pings it, subscribes and waits for a trade."""

import asyncio
import ssl
import time
from collections.abc import Sequence

import msgspec

from k2.binance.frames import ErrorReply, Reply, frame_decoder
from k2.binance.session import stream_name
from k2.binance.websocket import connect
from k2.doctor.finding import Unseen
from k2.doctor.websocket_judgement import StreamSeen
from k2.errors import RejectError, RetryError
from k2.market import StreamKind, Trade

WAIT_S = 10.0
SYMBOLS_MAX = 20
"""Enough that one of them trades; one SUBSCRIBE message."""


def look_at_stream(
    url: str,
    *,
    symbols: Sequence[str],
    kind: StreamKind,
    tls: ssl.SSLContext | None = None,
    wait_s: float = WAIT_S,
) -> StreamSeen | Unseen:
    """Open one connection, use it for ``wait_s`` at most, close it; blocking.

    It counts as one of the address's 300 connection attempts in 5 minutes, and sends two of the
    5 frames a second. Without ``tls`` the system's authorities count.
    """
    return asyncio.run(_look(url, symbols=symbols, kind=kind, tls=tls, wait_s=wait_s))


class _Heard:
    """What the socket tells, with the times; ``all`` is set when nothing is left to wait for."""

    def __init__(self, kind: StreamKind) -> None:
        self.pong_at_s: float | None = None
        self.acknowledged_at_s: float | None = None
        self.trade_at_s: float | None = None
        self.refused_with = ""
        self.misread = ""
        self.is_ended = False
        self.all = asyncio.Event()
        self._decode = frame_decoder(kind)

    def text(self, payload: bytes, recv_ts_ns: int) -> None:
        now_s = time.monotonic()
        try:
            frame = self._decode(payload, recv_ts_ns)
        except RejectError as exc:
            self.misread = self.misread or str(exc)
            self._note()
            return
        if isinstance(frame, Reply):
            self.acknowledged_at_s = now_s
        elif isinstance(frame, ErrorReply):
            self.refused_with = f"{frame.message} ({frame.code})"
        elif isinstance(frame, Trade) and self.trade_at_s is None:
            self.trade_at_s = now_s
        self._note()

    def pinged(self) -> None:
        pass  # answered already; our own PING is what is asked about

    def ponged(self) -> None:
        self.pong_at_s = time.monotonic()
        self._note()

    def refused(self, code: int, text: str) -> None:
        self.refused_with = f"{text or 'closed'} ({code})"

    def ended(self) -> None:
        self.is_ended = True
        self.all.set()

    def _note(self) -> None:
        heard = self.trade_at_s is not None or self.misread
        if self.refused_with or (self.pong_at_s and self.acknowledged_at_s and heard):
            self.all.set()


async def _look(
    url: str,
    *,
    symbols: Sequence[str],
    kind: StreamKind,
    tls: ssl.SSLContext | None,
    wait_s: float,
) -> StreamSeen | Unseen:
    heard = _Heard(kind)
    began_s = time.monotonic()
    try:
        socket = await connect(url, heard, tls=tls)
    except RetryError as exc:
        # The line names host and port already; the address itself may hold a password.
        return Unseen(str(exc).removeprefix(f"{url.partition('?')[0]}: "))
    asked_s = time.monotonic()
    names = [stream_name(symbol, kind) for symbol in symbols[:SYMBOLS_MAX]]
    socket.send_ping()
    order = {"method": "SUBSCRIBE", "params": names, "id": 1}
    socket.send_text(msgspec.json.encode(order).decode())
    try:
        async with asyncio.timeout(wait_s):
            await heard.all.wait()
    except TimeoutError:
        pass  # what did not come is None below
    ended = heard.is_ended
    socket.close(1000)
    socket.abort()  # the closing handshake is not what is asked about
    await socket.wait_ended()

    def since(at_s: float | None) -> float | None:
        return None if at_s is None else at_s - asked_s

    return StreamSeen(
        asked=tuple(names),
        waited_s=wait_s,
        opened_s=asked_s - began_s,
        pong_s=since(heard.pong_at_s),
        acknowledged_s=since(heard.acknowledged_at_s),
        first_trade_s=since(heard.trade_at_s),
        refused=heard.refused_with,
        misread=heard.misread,
        ended=ended,
    )
