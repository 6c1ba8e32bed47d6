"""One WebSocket connection: the server's side, the network between, the client's socket."""

import asyncio
import json
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from simulation.world.exchange_glitches import Glitches
from simulation.world.exchange_ledger import Row
from simulation.world.node import EPOCH_NS, Node

if TYPE_CHECKING:
    from simulation.world.exchange_world import ExchangeWorld

PING_EVERY_S = 20.0
PONG_WITHIN_S = 60.0
LIFE_MAX_S = 24 * 3600.0
CLIENT_FRAMES_PER_S_MAX = 5


class SocketEvents(Protocol):
    """What the client hears of its socket."""

    def text(self, payload: bytes, recv_ts_ns: int) -> object:
        """A text frame came."""

    def pinged(self) -> object:
        """The server's PING came, and was answered."""

    def ponged(self) -> object:
        """The answer to our PING came."""

    def refused(self, code: int, text: str) -> object:
        """The server's CLOSE came; ``ended`` follows."""

    def ended(self) -> object:
        """The socket is gone, whoever closed it. Told exactly once."""


class Connection:
    """The server's side and the network. Callbacks of the client run on its node."""

    def __init__(
        self, exchange: "ExchangeWorld", node: Node, host: str, events: SocketEvents
    ) -> None:
        self.node = node
        self.host = host
        self.opened_s = exchange.loop.time()
        self.glitches: Glitches | None = None
        self.delay_s = exchange.rng.uniform(0.002, 0.06)
        self.slow_until_s = 0.0
        self.slow_by_s = 0.0
        self.pings_muted_until_s = 0.0
        self.streams: dict[str, str] = {}
        """Stream name, as subscribed, to symbol."""
        self.open = True
        """Whether the server still has it."""
        self._exchange = exchange
        self._loop = exchange.loop
        self._events = events
        self._dead_link = False
        self._ended = False
        self.gone = asyncio.Event()
        """Set once the client has been told of the end; ``why`` says what ended it."""
        self.why = ""
        self._down_due_s = 0.0
        self._up_due_s = 0.0
        self._held: list[bytes] | None = None
        self._unanswered: deque[float] = deque()
        self._client_frames: deque[float] = deque()
        self._loop.call_world(PING_EVERY_S, self._ping)
        self._loop.call_world(LIFE_MAX_S, self.close, 1001, "24 h")

    # What the exchange does.

    def publish(self, symbol: str, row: Row, payload: bytes) -> None:
        """Pass an event on, glitches permitting."""
        if self.glitches is None:
            self._data(payload)
            return
        for frame in self.glitches.apply(symbol, row, payload, now_s=self._loop.time()):
            self._data(frame)

    def announce(self, text: str) -> None:
        """Send a text frame nobody asked for."""
        self._down(self._text, text.encode())

    def close(self, code: int, text: str) -> None:
        """Close cleanly: a CLOSE frame, then the end of TCP."""
        if self.open:
            self._forget()
            self._down(self._refused, code, text)

    def reset(self) -> None:
        """End TCP without a word."""
        if self.open:
            self._forget()
            self._down(self.end_client, "connection reset by peer")

    def lose_link(self, *, for_s: float) -> None:
        """Half-open: nothing gets through either way, then a reset."""
        self._dead_link = True
        self._loop.call_world(for_s, self._link_given_up)

    def stall(self, *, for_s: float) -> None:
        """Hold everything back on the network, in order."""
        self._down_due_s = max(self._down_due_s, self._loop.time() + for_s)

    def stall_data(self, *, for_s: float) -> None:
        """Hold data back at the server while its pings go out."""
        if self._held is None:
            self._held = []
            self._loop.call_world(for_s, self._release)

    def _release(self) -> None:
        held, self._held = self._held or [], None
        for payload in held:
            self._down(self._text, payload)

    def _link_given_up(self) -> None:
        self._forget()
        self._dead_link = False
        self._down(self.end_client, "connection reset by peer")

    def _forget(self) -> None:
        if self.open:
            self.open = False
            self._exchange.forget(self)

    def _data(self, payload: bytes) -> None:
        if self._held is not None:
            self._held.append(payload)
        else:
            self._down(self._text, payload)

    def _ping(self) -> None:
        if not self.open:
            return
        now_s = self._loop.time()
        if self._unanswered and now_s - self._unanswered[0] >= PONG_WITHIN_S:
            self.close(1008, "Pong timeout")
            return
        if now_s >= self.pings_muted_until_s:
            self._unanswered.append(now_s)
            self._down(self._pinged, now_s)
        self._loop.call_world(PING_EVERY_S, self._ping)

    def _ponged(self, sent_s: float) -> None:
        while self._unanswered and self._unanswered[0] <= sent_s:
            self._unanswered.popleft()

    # What the client sends.

    def up(self, call: Callable[..., object], *args: Any) -> None:
        """Carry something to the server, in order."""
        if not self._dead_link:
            self._up_due_s = max(self._up_due_s, self._loop.time() + self._latency_s())
            self._loop.call_world(self._up_due_s - self._loop.time(), self._arrived, call, args)

    def _arrived(self, call: Callable[..., object], args: tuple[Any, ...]) -> None:
        if self.open and not self._dead_link:
            call(*args)

    def counted(self, call: Callable[..., object], *args: Any) -> None:
        """Handle a client's frame, unless it is one too many in this second."""
        now_s = self._loop.time()
        self._client_frames.append(now_s)
        while self._client_frames[0] <= now_s - 1:
            self._client_frames.popleft()
        if len(self._client_frames) > CLIENT_FRAMES_PER_S_MAX:
            self._exchange.too_many_frames += 1
            self.close(1008, "Too many requests")
        else:
            call(*args)

    def asked(self, text: str) -> None:
        """Answer a control message, as the venue does."""
        try:
            request = json.loads(text)
            method, request_id = request["method"], request["id"]
            names = list(request.get("params", []))
        except (ValueError, TypeError, KeyError):
            self.announce('{"code":2,"msg":"Invalid request"}')
            return
        result: list[str] | None = None
        if method == "SUBSCRIBE":
            for name in names:
                # Unknown and upper-case names are acknowledged and stay silent.
                symbol, _, kind = name.partition("@")
                known = kind == "aggTrade" and symbol == symbol.lower()
                self.streams[name] = symbol.upper() if known else ""
            self._exchange.subscribed(self)
        elif method == "UNSUBSCRIBE":
            for name in names:
                self.streams.pop(name, None)
            self._exchange.subscribed(self)
        elif method == "LIST_SUBSCRIPTIONS":
            result = list(self.streams)
        else:
            self.announce(f'{{"code":2,"msg":"Invalid request: unknown variant {method}"}}')
            return
        self.announce(json.dumps({"result": result, "id": request_id}, separators=(",", ":")))

    def ping_asked(self) -> None:
        """Answer the client's PING."""
        self._down(self._events.ponged)

    def closed_by_client(self) -> None:
        """Answer the client's CLOSE and end TCP."""
        self._forget()
        self._down(self.end_client, "closed")

    def aborted_by_client(self) -> None:
        """Notice that the client is gone."""
        self._forget()

    # What the client hears, on its node.

    def _latency_s(self) -> float:
        slow_s = self.slow_by_s if self._loop.time() < self.slow_until_s else 0.0
        return slow_s + self.delay_s * (0.8 + 0.4 * self._exchange.rng.random())

    def _down(self, call: Callable[..., object], *args: Any) -> None:
        if self._dead_link:
            return
        due_s = self._loop.time() + self._latency_s()
        self._down_due_s = due_s = max(self._down_due_s, due_s)
        self._loop.call_at(due_s, self._heard, call, args, context=self.node.context)

    def _heard(self, call: Callable[..., object], args: tuple[Any, ...]) -> None:
        if not self._ended and not self._dead_link:
            call(*args)

    def _text(self, payload: bytes) -> None:
        now_ns = EPOCH_NS + round(self._loop.time() * 1e9) + self.node.wall_offset_ns
        self._events.text(payload, now_ns)

    def _pinged(self, sent_s: float) -> None:
        self._events.pinged()
        self.up(self._ponged, sent_s)

    def _refused(self, code: int, text: str) -> None:
        self._events.refused(code, text)
        self.end_client(f"closed by server with {code}")

    def end_soon(self) -> None:
        """End the client's side by itself, as soon as its loop comes round to it."""
        self._loop.call_soon(self.end_client, "aborted", context=self.node.context)

    def end_client(self, why: str) -> None:
        """Tell the client that its socket is gone, once."""
        if not self._ended:
            self._ended = True
            self.why = why
            self._events.ended()
            self.gone.set()


class SimSocket:
    """The client's handle."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def send_text(self, text: str) -> None:
        """Send a text frame."""
        self._send(self._connection.counted, self._connection.asked, text)

    def send_ping(self) -> None:
        """Send a PING frame."""
        self._send(self._connection.counted, self._connection.ping_asked)

    def close(self, code: int = 1000) -> None:
        """Send CLOSE; ``ended`` follows when the server has answered."""
        del code
        self._send(self._connection.closed_by_client)

    def abort(self) -> None:
        """Drop the socket without waiting for the server."""
        connection = self._connection
        self._send(connection.aborted_by_client)
        connection.end_soon()

    async def wait_ended(self) -> None:
        """Wait for the end."""
        await self._connection.gone.wait()

    def _send(self, call: Callable[..., object], *args: Any) -> None:
        if self._connection.node.alive:
            self._connection.up(call, *args)
