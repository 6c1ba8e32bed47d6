"""The stream side of the exchange: handshakes in, tape rows out to whoever listens."""

import random
import time
from collections import Counter
from collections.abc import Iterable

from aiohttp import web

from k2.errors import RejectError
from k2.simulator.config import ExchangeConfig
from k2.simulator.connection import CLOSE_GOING_AWAY, CLOSE_WAIT_S, Connection
from k2.simulator.connection_faults import ConnectionFaults, Event
from k2.simulator.control_messages import Subscriptions
from k2.simulator.fault_orders import FaultOrders, outlives_connections
from k2.simulator.frames import (
    MALFORMED,
    event_json,
    stream_name,
    text_frame,
    unknown_event_json,
)
from k2.simulator.limits import STREAMS_PER_CONNECTION_MAX, ConnectionAttempts
from k2.simulator.rows import TapeRow
from k2.simulator.stream_faults import (
    ConnectionFault,
    Malformed,
    StreamFault,
    UnknownEvent,
    Which,
)

_TIME_UNITS = {
    "MICROSECOND": True,
    "microsecond": True,
    "MILLISECOND": False,
    "millisecond": False,
}


class StreamServer:
    """Every open connection (in the order they were opened), and the rules of opening one."""

    def __init__(self, config: ExchangeConfig) -> None:
        self.connections: dict[int, Connection] = {}
        self.counts: Counter[str] = Counter()
        self.orders = FaultOrders(self.counts)
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
        for connection in list(self.connections.values()):
            wanted = connection.subscriptions.stream_names.keys()
            names = [name for name in by_stream if name in wanted]
            if not names:
                continue
            if connection.faults.touches_events():
                listened = [row for name in names for row in by_stream[name]]
                events = connection.faults.events(listened, time.monotonic())
                self._send(connection, events)
                continue
            parts: list[bytes] = []
            for name in names:
                variant = (name, connection.subscriptions.combined, connection.microseconds)
                if variant not in encoded:
                    encoded[variant] = _frames(connection, map(Event, by_stream[name]))
                parts.append(encoded[variant])
                self.counts["events sent"] += len(by_stream[name])
            connection.send_events(b"".join(parts))

    def listened_to(self, symbols: Iterable[str]) -> bool:
        """True if anybody listens to a trade stream of one of these symbols."""
        wanted = {
            f"{symbol.lower()}@{kind}" for symbol in symbols for kind in ("aggTrade", "trade")
        }
        return any(wanted & c.subscriptions.stream_names.keys() for c in self.connections.values())

    def choose(self, which: Which) -> list[Connection]:
        """Return the open connections meant.

        Raises:
            RejectError: If there is no such connection; ``all`` may be none.
        """
        connections = list(self.connections.values())
        if which == "all":
            return connections
        if which in {"oldest", "newest"} and connections:
            return connections[:1] if which == "oldest" else connections[-1:]
        found = [c for c in connections if c.number == which]
        if not found:
            raise RejectError(f"no open connection is {which}")
        return found

    def order(self, fault: StreamFault) -> tuple[int, list[int]]:
        """Put a fault in force; returns its number and those of the connections it struck.

        Raises:
            RejectError: If it is meant for connections, and there are none.
        """
        now_s = time.monotonic()
        if not isinstance(fault, ConnectionFault):
            return self.orders.take(fault, now_s=now_s), []
        chosen = self.choose(fault.which)
        if not chosen and not outlives_connections(fault):
            raise RejectError(f"no connection is open, so none can suffer {fault.name}")
        number = self.orders.take(fault, now_s=now_s)
        for connection in chosen:
            if isinstance(fault, Malformed | UnknownEvent):
                self.counts[f"fault {fault.name}"] += fault.count
                connection.send_events(_strange_frames(connection, fault))
            else:
                connection.faults.order(number, fault, now_s=now_s)
        return number, [connection.number for connection in chosen]

    def cancel(self, number: int | None) -> None:
        """Forget one stream fault, or all; what was held back goes out."""
        self.orders.cancel(number)
        for connection in list(self.connections.values()):
            held = connection.faults.cancel(number)
            self._send(connection, held)

    def upkeep(self, *, elapsed_s: float) -> None:
        """Run every connection's heartbeat, age limit and random early drop."""
        now_s = time.monotonic()
        drop_chance = self._config.drops_per_hour * elapsed_s / 3600
        for connection in list(self.connections.values()):
            connection.upkeep(now_s)
            if connection.faults.half_open(now_s):
                continue
            if drop_chance and self._rng.random() < drop_chance:
                if self._rng.random() < 0.5:
                    connection.end("early drop", code=CLOSE_GOING_AWAY, reason="")
                else:
                    connection.abort("early drop")

    async def close(self) -> None:
        """End all connections with 1001; takes at most about ``CLOSE_WAIT_S``."""
        connections = list(self.connections.values())
        for connection in connections:
            connection.end("shutdown", code=CLOSE_GOING_AWAY, reason="")
        for connection in connections:
            await connection.wait_ended()

    def _send(self, connection: Connection, events: list[Event]) -> None:
        if events:
            self.counts["events sent"] += len(events)
            connection.send_events(_frames(connection, events))

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
        refusal = self.orders.refusal(time.monotonic())
        if refusal is not None:
            return web.Response(status=refusal, text="Refused")
        streams = dict.fromkeys(name for name in names.split("/") if name)
        unit = request.query.get("timeUnit", "MILLISECOND")
        if unit not in _TIME_UNITS or len(streams) > STREAMS_PER_CONNECTION_MAX:
            return web.Response(status=400, text="Bad timeUnit or too many streams")
        # Pings, pongs and closes must reach us as they came, and events go out uncompressed as
        # the venue's do; a client's close handshake may not hold the server up.
        socket = web.WebSocketResponse(
            autoping=False,
            autoclose=False,
            compress=False,
            timeout=CLOSE_WAIT_S,
            max_msg_size=1024 * 1024,
        )
        await socket.prepare(request)
        if request.transport is None:
            return socket
        self.counts["connections opened"] += 1
        connection = Connection(
            socket,
            request.transport,
            number=self.counts["connections opened"],
            request=request,
            subscriptions=Subscriptions(combined=combined, stream_names=streams),
            microseconds=_TIME_UNITS[unit],
            faults=ConnectionFaults(self.counts),
            config=self._config,
        )
        now_s = time.monotonic()
        for number, fault in self.orders.for_newcomer(now_s):
            connection.faults.order(number, fault, now_s=now_s)
        self.connections[connection.number] = connection
        try:
            await connection.serve()
        finally:
            del self.connections[connection.number]
            self.counts[f"connections ended: {connection.ended_by}"] += 1
            if connection.ended_by == "flood" and self._config.flood_ban_s:
                until_s = time.monotonic() + self._config.flood_ban_s
                self._attempts.ban(address, until_s=until_s)
        return socket


def _frames(connection: Connection, events: Iterable[Event]) -> bytes:
    return b"".join(
        text_frame(
            event_json(
                event.row,
                combined=connection.subscriptions.combined,
                microseconds=connection.microseconds,
                extra_json=event.extra_json,
            ).encode()
        )
        for event in events
    )


def _strange_frames(connection: Connection, fault: Malformed | UnknownEvent) -> bytes:
    if isinstance(fault, Malformed):
        texts = MALFORMED if fault.text is None else (fault.text,)
    else:
        unknown = unknown_event_json(
            event_ts_us=time.time_ns() // 1000,
            combined=connection.subscriptions.combined,
            microseconds=connection.microseconds,
        )
        texts = (unknown,)
    return b"".join(text_frame(texts[n % len(texts)].encode()) for n in range(fault.count))
