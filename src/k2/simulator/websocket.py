"""The stream side of the exchange: handshakes in, tape rows out to whoever listens."""

import random
import time
from collections import Counter
from collections.abc import Iterable

from aiohttp import web

from k2.simulator.config import ExchangeConfig
from k2.simulator.connection import CLOSE_GOING_AWAY, CLOSE_WAIT_S, Connection
from k2.simulator.control_messages import Subscriptions
from k2.simulator.frames import event_json, stream_name, text_frame
from k2.simulator.limits import STREAMS_PER_CONNECTION_MAX, ConnectionAttempts
from k2.simulator.rows import TapeRow

_TIME_UNITS = {
    "MICROSECOND": True,
    "microsecond": True,
    "MILLISECOND": False,
    "millisecond": False,
}


class StreamServer:
    """Every open connection, and the rules of opening one."""

    def __init__(self, config: ExchangeConfig) -> None:
        self.connections: set[Connection] = set()
        self.counts: Counter[str] = Counter()
        self._config = config
        self._rng = random.Random(f"drops:{config.seed}")  # noqa: S311 a reproducible simulation
        self._attempts = ConnectionAttempts(
            attempts_max=config.attempts_max, window_s=config.attempts_window_s
        )

    def add_routes(self, app: web.Application) -> None:
        """Serve ``/ws``, ``/ws/<s>``, ``/ws/<a>/<b>``, ``/stream``, ``/stream?streams=<a>/<b>``."""
        app.router.add_get("/ws", self._raw)
        app.router.add_get("/ws/{names:.*}", self._raw)
        app.router.add_get("/stream", self._combined)

    def publish(self, rows: Iterable[TapeRow]) -> None:
        """Send rows to the connections that listen to them, in order, in one write each."""
        by_stream: dict[str, list[TapeRow]] = {}
        for row in rows:
            by_stream.setdefault(stream_name(row), []).append(row)
        encoded: dict[tuple[str, bool, bool], bytes] = {}
        for connection in list(self.connections):
            combined = connection.subscriptions.combined
            parts: list[bytes] = []
            for name, stream_rows in by_stream.items():
                if name not in connection.subscriptions.stream_names:
                    continue
                variant = (name, combined, connection.microseconds)
                if variant not in encoded:
                    encoded[variant] = b"".join(
                        text_frame(
                            event_json(
                                row, combined=combined, microseconds=connection.microseconds
                            ).encode()
                        )
                        for row in stream_rows
                    )
                parts.append(encoded[variant])
                self.counts["events sent"] += len(stream_rows)
            if parts:
                connection.send(b"".join(parts))

    def listened_to(self, symbols: Iterable[str]) -> bool:
        """True if anybody listens to a trade stream of one of these symbols."""
        wanted = {
            f"{symbol.lower()}@{kind}" for symbol in symbols for kind in ("aggTrade", "trade")
        }
        return any(wanted & c.subscriptions.stream_names.keys() for c in self.connections)

    def upkeep(self, *, elapsed_s: float) -> None:
        """Run every connection's heartbeat, age limit and random early drop."""
        now_s = time.monotonic()
        drop_chance = self._config.drops_per_hour * elapsed_s / 3600
        for connection in list(self.connections):
            connection.upkeep(now_s)
            if drop_chance and self._rng.random() < drop_chance:
                if self._rng.random() < 0.5:
                    connection.end("early drop", code=CLOSE_GOING_AWAY, reason="")
                else:
                    connection.abort("early drop")

    async def close(self) -> None:
        """End all connections with 1001; takes at most about ``CLOSE_WAIT_S``."""
        connections = list(self.connections)
        for connection in connections:
            connection.end("shutdown", code=CLOSE_GOING_AWAY, reason="")
        for connection in connections:
            await connection.wait_ended()

    async def _raw(self, request: web.Request) -> web.StreamResponse:
        return await self._open(request, request.match_info.get("names", ""), combined=False)

    async def _combined(self, request: web.Request) -> web.StreamResponse:
        return await self._open(request, request.query.get("streams", ""), combined=True)

    async def _open(
        self, request: web.Request, names: str, *, combined: bool
    ) -> web.StreamResponse:
        address = request.remote or ""
        self.counts["connection attempts"] += 1
        if not self._attempts.admit(address, time.monotonic()):
            self.counts["connection attempts refused"] += 1
            return web.Response(status=429, text="Too many connection attempts")
        streams = dict.fromkeys(name for name in names.split("/") if name)
        unit = request.query.get("timeUnit", "MILLISECOND")
        if unit not in _TIME_UNITS or len(streams) > STREAMS_PER_CONNECTION_MAX:
            return web.Response(status=400, text="Bad timeUnit or too many streams")
        # Pings and pongs must reach us as they came, and events go out uncompressed as the
        # venue's do; a client's close handshake may not hold the server up.
        socket = web.WebSocketResponse(
            autoping=False, compress=False, timeout=CLOSE_WAIT_S, max_msg_size=1024 * 1024
        )
        await socket.prepare(request)
        if request.transport is None:
            return socket
        connection = Connection(
            socket,
            request.transport,
            subscriptions=Subscriptions(combined=combined, stream_names=streams),
            microseconds=_TIME_UNITS[unit],
            address=address,
            config=self._config,
        )
        self.connections.add(connection)
        self.counts["connections opened"] += 1
        try:
            await connection.serve()
        finally:
            self.connections.discard(connection)
            self.counts[f"connections ended: {connection.ended_by}"] += 1
            if connection.ended_by == "flood" and self._config.flood_ban_s:
                until_s = time.monotonic() + self._config.flood_ban_s
                self._attempts.ban(address, until_s=until_s)
        return socket
