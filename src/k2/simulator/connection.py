"""One client's WebSocket connection, as the exchange sees it.

A shell round aiohttp's server socket. Frames are written to the transport directly: that never
waits, so a slow reader fills its own buffer, is cut when that is full, and delays nobody.
"""

import asyncio
import time

from aiohttp import WSMsgType, web

from k2.simulator.config import ExchangeConfig
from k2.simulator.connection_faults import ConnectionFaults
from k2.simulator.control_messages import Subscriptions, answer
from k2.simulator.frames import ping_frame, pong_frame, shutdown_json, text_frame
from k2.simulator.heartbeat import Heartbeat
from k2.simulator.limits import SlidingCount

CLOSE_WAIT_S = 0.5
CLOSE_POLICY = 1008
CLOSE_GOING_AWAY = 1001


class Connection:
    """Subscriptions, heartbeat, limits and faults of one socket, once the handshake is done."""

    def __init__(
        self,
        socket: web.WebSocketResponse,
        transport: asyncio.Transport,
        *,
        number: int,
        request: web.BaseRequest,
        subscriptions: Subscriptions,
        microseconds: bool,
        faults: ConnectionFaults,
        config: ExchangeConfig,
    ) -> None:
        now_s = time.monotonic()
        self.number = number
        self.subscriptions = subscriptions
        self.microseconds = microseconds
        self.faults = faults
        self.address = request.remote or ""
        self.ended_by = "client"
        self._path = request.path
        self._host = request.host
        self._socket = socket
        self._transport = transport
        self._config = config
        self._opened_s = now_s
        self._shutdown_s: float | None = None
        self._late = bytearray()
        self._heard_again = asyncio.Event()
        self._ending: asyncio.Task[None] | None = None
        self._frames = SlidingCount(
            events_max=config.control_frames_max, window_s=config.control_frames_window_s
        )
        self._heartbeat = Heartbeat(
            now_s=now_s,
            interval_s=config.ping_interval_s,
            timeout_s=config.ping_timeout_s,
            check=config.pong_check,
        )

    @property
    def ending(self) -> bool:
        """True once the exchange has decided to end this connection."""
        return self._ending is not None or self._transport.is_closing()

    def describe(self) -> dict[str, object]:
        """Return what a status report says of this connection."""
        return {
            "number": self.number,
            "age_s": round(time.monotonic() - self._opened_s, 3),
            "streams": len(self.subscriptions.stream_names),
            "path": self._path,
            "host": self._host,
            "faults": self.faults.describe(),
        }

    async def serve(self) -> None:
        """Read the client's frames until either side ends the connection."""
        while True:
            message = await self._socket.receive()
            half_open = self.faults.half_open(time.monotonic())
            if message.type in {
                WSMsgType.CLOSE,
                WSMsgType.CLOSING,
                WSMsgType.CLOSED,
                WSMsgType.ERROR,
            }:
                if half_open and message.type is WSMsgType.CLOSE and not self.ending:
                    self._heard_again.clear()
                    await self._heard_again.wait()
                break
            if half_open:
                continue
            if not self._frames.admit(time.monotonic()):
                self.end("flood", code=CLOSE_POLICY, reason="Too many requests")
                break
            if message.type is WSMsgType.PING:
                self.send(pong_frame(bytes(message.data)))
            elif message.type is WSMsgType.PONG:
                self._heartbeat.pong(bytes(message.data))
            elif message.type is WSMsgType.TEXT:
                reply = answer(message.data, self.subscriptions, shape=self._config.error_shape)
                if reply is not None:
                    self.send(text_frame(reply.encode()))
        if self._ending is not None:
            await self._ending
        elif not self._transport.is_closing():
            # The client is about to leave, so nothing is drained.
            await self._socket.close(drain=False)

    def send(self, data: bytes) -> None:
        """Write whole frames without waiting; cut the reader if its buffer is full."""
        if self.ending or self.faults.half_open(time.monotonic()):
            return
        if self._transport.get_write_buffer_size() > self._config.send_buffer_max_bytes:
            self.abort("slow reader")
            return
        self._transport.write(data)

    def send_events(self, data: bytes) -> None:
        """Write frames with events; while they must wait, keep as many as for a slow reader."""
        if not self.faults.stalled(time.monotonic()):
            self._send_late()
            self.send(data)
        elif len(self._late) + len(data) > self._config.send_buffer_max_bytes:
            self.abort("slow reader")
        else:
            self._late += data

    def announce_shutdown(self, *, lead_s: float) -> None:
        """Say that this server goes away, and close ``lead_s`` later."""
        event = shutdown_json(
            event_ts_us=time.time_ns() // 1000,
            combined=self.subscriptions.combined,
            microseconds=self.microseconds,
        )
        self.send(text_frame(event.encode()))
        self._shutdown_s = time.monotonic() + lead_s
        if not lead_s:
            self.end("server shutdown", code=CLOSE_GOING_AWAY, reason="")

    def upkeep(self, now_s: float) -> None:
        """Send the ping that is due, or end a connection that is silent or too old."""
        self.faults.expire(now_s)
        if self.faults.half_open(now_s) and not self.ending:
            return
        self._heard_again.set()
        if self.ending:
            return
        if not self.faults.stalled(now_s):
            self._send_late()
        if self._heartbeat.expired(now_s):
            self.end("pong timeout", code=CLOSE_POLICY, reason="Pong timeout")
        elif self._shutdown_s is not None and now_s >= self._shutdown_s:
            self.end("server shutdown", code=CLOSE_GOING_AWAY, reason="")
        elif now_s - self._opened_s >= self._config.connection_age_max_s:
            self.end("age", code=CLOSE_GOING_AWAY, reason="")
        elif not self.faults.pings_muted(now_s):
            payload = str(time.time_ns() // 1_000_000).encode()
            if self._heartbeat.ping_due(now_s, payload):
                self.send(ping_frame(payload))

    def end(self, cause: str, *, code: int, reason: str) -> None:
        """Close with a close frame; at most ``CLOSE_WAIT_S`` is given to the client's answer."""
        if self.ending:
            return
        self.ended_by = cause
        self._ending = asyncio.create_task(self._close(code, reason), name=f"close: {cause}")
        self._heard_again.set()

    def abort(self, cause: str) -> None:
        """Drop the TCP connection without a close frame."""
        self.ended_by = cause
        self._transport.abort()
        self._heard_again.set()

    async def wait_ended(self) -> None:
        """Wait for the end that was begun with ``end``."""
        if self._ending is not None:
            await self._ending

    def _send_late(self) -> None:
        if self._late:
            late, self._late = bytes(self._late), bytearray()
            self.send(late)

    async def _close(self, code: int, reason: str) -> None:
        try:
            async with asyncio.timeout(CLOSE_WAIT_S):
                await self._socket.close(code=code, message=reason.encode())
        except (ConnectionError, TimeoutError):
            # Closing politely would wait for a reader that does not read.
            self._transport.abort()
