"""One client's WebSocket connection, as the exchange sees it.

A shell round aiohttp's server socket. Frames are written to the transport directly: that never
waits, so a slow reader fills its own buffer, is cut when that is full, and delays nobody.
"""

import asyncio
import time

from aiohttp import WSMsgType, web

from k2.simulator.config import ExchangeConfig
from k2.simulator.control_messages import Subscriptions, answer
from k2.simulator.frames import ping_frame, pong_frame, text_frame
from k2.simulator.heartbeat import Heartbeat
from k2.simulator.limits import SlidingCount

CLOSE_WAIT_S = 0.5
CLOSE_POLICY = 1008
CLOSE_GOING_AWAY = 1001


class Connection:
    """Subscriptions, heartbeat and limits of one socket. Created once the handshake is done."""

    def __init__(
        self,
        socket: web.WebSocketResponse,
        transport: asyncio.Transport,
        *,
        subscriptions: Subscriptions,
        microseconds: bool,
        address: str,
        config: ExchangeConfig,
    ) -> None:
        now_s = time.monotonic()
        self.subscriptions = subscriptions
        self.microseconds = microseconds
        self.address = address
        self.ended_by = "client"
        self._socket = socket
        self._transport = transport
        self._config = config
        self._opened_s = now_s
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

    async def serve(self) -> None:
        """Read the client's frames until either side ends the connection."""
        while True:
            message = await self._socket.receive()
            if message.type in {
                WSMsgType.CLOSE,
                WSMsgType.CLOSING,
                WSMsgType.CLOSED,
                WSMsgType.ERROR,
            }:
                break
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

    def send(self, data: bytes) -> None:
        """Write whole frames without waiting; cut the reader if its buffer is full."""
        if self.ending:
            return
        if self._transport.get_write_buffer_size() > self._config.send_buffer_max_bytes:
            self.abort("slow reader")
            return
        self._transport.write(data)

    def upkeep(self, now_s: float) -> None:
        """Send the ping that is due, or end a connection that is silent or too old."""
        if self.ending:
            return
        if self._heartbeat.expired(now_s):
            self.end("pong timeout", code=CLOSE_POLICY, reason="Pong timeout")
        elif now_s - self._opened_s >= self._config.connection_age_max_s:
            self.end("age", code=CLOSE_GOING_AWAY, reason="")
        else:
            payload = str(time.time_ns() // 1_000_000).encode()
            if self._heartbeat.ping_due(now_s, payload):
                self.send(ping_frame(payload))

    def end(self, cause: str, *, code: int, reason: str) -> None:
        """Close with a close frame; at most ``CLOSE_WAIT_S`` is given to the client's answer."""
        if self.ending:
            return
        self.ended_by = cause
        self._ending = asyncio.create_task(self._close(code, reason), name=f"close: {cause}")

    def abort(self, cause: str) -> None:
        """Drop the TCP connection without a close frame."""
        self.ended_by = cause
        self._transport.abort()

    async def wait_ended(self) -> None:
        """Wait for the end that was begun with ``end``."""
        if self._ending is not None:
            await self._ending

    async def _close(self, code: int, reason: str) -> None:
        try:
            async with asyncio.timeout(CLOSE_WAIT_S):
                await self._socket.close(code=code, message=reason.encode())
        except (ConnectionError, TimeoutError):
            # Closing politely would wait for a reader that does not read.
            self._transport.abort()
