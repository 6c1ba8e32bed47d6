"""PURE: the life of one WebSocket connection to Binance, without a socket or a clock.

Events go in (``opened``, ``replied``, ``tick`` ...), actions come out (``Send``, ``Ping``,
``Close`` ...). Opening, replacing and opening again is the business of ``leg.py``.

    OPENING --opened--> SUBSCRIBING --all acknowledged, list agrees--> LIVE --close--> CLOSING
                             ^                                          |
                             +------------ other streams wanted --------+
"""

from collections.abc import Iterable, Mapping
from enum import Enum

import msgspec

from k2.binance.frames import ErrorReply, Reply
from k2.binance.limits import NAMES_PER_SUBSCRIBE_MAX, SendWindow
from k2.market import StreamKind

CLOSE_TIMEOUT_S = 2.0
"""How long the peer has to take part in the closing."""

PINGS_MISSING_S = 75.0
"""The server pings each 20 s; a missing one is nothing, several are a sign (fact sheet 11)."""


class State(Enum):
    """Where the connection is in its life."""

    OPENING = "opening"
    SUBSCRIBING = "subscribing"
    LIVE = "live"
    CLOSING = "closing"


class Send(msgspec.Struct, frozen=True):
    """Send this text frame."""

    text: str


class Ping(msgspec.Struct, frozen=True):
    """Send a PING control frame (the optional client probe, contract C6)."""


class Close(msgspec.Struct, frozen=True):
    """Close the WebSocket; ``reason`` is a label of contract R003 or R012."""

    code: int
    reason: str


class Abort(msgspec.Struct, frozen=True):
    """Drop the socket: its peer does not take part in the closing."""


Action = Send | Ping | Close | Abort


class SessionLimits(msgspec.Struct, frozen=True):
    """The settings of a session, in seconds."""

    stale_after_s: float = 30.0
    """Close when neither a trade nor a server's ping came for so long; 0 never."""
    reply_within_s: float = 10.0
    probe_every_s: float = 180.0
    """0 sends no client probe; the server's own pings are answered by the shell either way. A probe
    not answered within ``reply_within_s`` means that the connection is to be replaced."""


def stream_name(symbol: str, kind: StreamKind) -> str:
    """Return a symbol's stream, such as ``btcusdt@aggTrade``."""
    return f"{symbol.lower()}@{kind.value}"


class Session:
    """One connection's state. All times are seconds of one monotonic clock, given by the caller.

    ``last_ids`` and ``first_ids`` (symbol to the newest and the first id heard here) say what this
    connection has delivered; ``last_ping_s`` when the server's PING came.
    """

    def __init__(self, symbols: Iterable[str], kind: StreamKind, limits: SessionLimits) -> None:
        """Prepare a connection that is to carry these symbols."""
        self.state = State.OPENING
        self.opened_at_s = 0.0
        self.live_at_s = 0.0
        self.last_trade_s = 0.0
        self.last_ping_s = 0.0
        self.last_ids: dict[str, int] = {}
        self.first_ids: dict[str, int] = {}
        self.close_reason = ""
        self.replaced = False
        """Whether a newcomer has taken its place: its end is no loss."""
        self._kind = kind
        self._limits = limits
        self._wanted = {stream_name(symbol, kind) for symbol in symbols}
        self._subscribed: set[str] = set()
        self._excused: dict[str, int] = {}
        self._outbox: list[tuple[str, list[str] | None]] = []
        self._awaiting: dict[int, float] = {}
        self._list_id = 0
        self._next_request_id = 1
        self._probed_at_s = 0.0
        self._pong_due_s = float("inf")
        self._abort_at_s = 0.0
        self._window = SendWindow()

    # What happens.

    def opened(self, now_s: float) -> list[Action]:
        """The handshake succeeded: subscribe in batches, as fast as the limit allows."""
        self.opened_at_s = now_s
        if self.state is State.CLOSING:  # given up while the handshake was under way
            return self._closing(now_s)
        return self._reconcile_streams(now_s)

    def want(self, symbols: Iterable[str], now_s: float) -> list[Action]:
        """Carry these symbols from now on; the streams of the others go on undisturbed."""
        self._wanted = {stream_name(symbol, self._kind) for symbol in symbols}
        if self.state is not State.LIVE:
            return []  # what is under way ends in a comparison with what is wanted then
        return self._reconcile_streams(now_s)

    def saw(self, symbol: str, source_id: int, now_s: float) -> None:
        """A trade came on this connection."""
        self.last_trade_s = now_s
        if symbol not in self.last_ids:
            self.first_ids[symbol] = source_id
        self.last_ids[symbol] = source_id

    def excuse(self, heard: Mapping[str, int]) -> None:
        """Ids up to these need not come here: they were published before, or came by REST."""
        for symbol, source_id in heard.items():
            self._excused[symbol] = max(source_id, self._excused.get(symbol, -1))

    def lacks(self, symbol: str, source_id: int) -> bool:
        """Say whether this connection should have delivered this id by now and has not."""
        return source_id > max(self.last_ids.get(symbol, -1), self._excused.get(symbol, -1))

    def replied(self, message: Reply | ErrorReply, now_s: float) -> list[Action]:
        """Take one answer to a control message.

        An acknowledgement does not prove that a stream exists, so the session asks for the list
        once all batches are acknowledged and is LIVE only when the server's list agrees.
        """
        if self.state is not State.SUBSCRIBING:
            return []
        if isinstance(message, ErrorReply):
            return self.close("websocket_error", now_s)
        if not isinstance(message.request_id, int) or message.request_id not in self._awaiting:
            return []
        del self._awaiting[message.request_id]
        if message.request_id == self._list_id:
            return self._listed(message.result, now_s)
        if not self._awaiting and not self._outbox:
            self._outbox = [("LIST_SUBSCRIPTIONS", None)]
            self._list_id = self._next_request_id
        return self._sendable(now_s)

    def slept(self, now_s: float) -> None:
        """We were not running: silence until now was ours, not the peer's."""
        self.last_ping_s = now_s
        self._awaiting = dict.fromkeys(self._awaiting, now_s)
        if self._pong_due_s < float("inf"):
            self._pong_due_s = now_s + self._limits.reply_within_s

    def ponged(self) -> None:
        """The server answered our probe."""
        self._pong_due_s = float("inf")

    def tick(self, now_s: float) -> list[Action]:
        """Do what is due: send what the rate limit held back, notice silence."""
        if self.state is State.CLOSING and self.opened_at_s and now_s >= self._abort_at_s:
            self._abort_at_s = now_s + CLOSE_TIMEOUT_S  # to ask again, not in the same instant
            return [Abort()]
        if self.state not in (State.SUBSCRIBING, State.LIVE):
            return []
        if now_s >= self._unheard_at_s():
            return self.close("health_check_timeout", now_s)
        actions = self._sendable(now_s)
        if now_s >= self._probe_due_s() and self._window.take(now_s):
            self._probed_at_s = now_s
            self._pong_due_s = min(self._pong_due_s, now_s + self._limits.reply_within_s)
            actions.append(Ping())
        return actions

    def close(self, reason: str, now_s: float) -> list[Action]:
        """End this connection politely, with 1000."""
        if self.state is State.CLOSING:
            return []
        self.close_reason = reason
        opening = self.state is State.OPENING
        self.state = State.CLOSING
        return [] if opening else self._closing(now_s)

    # What can be asked.

    def next_due_s(self, now_s: float) -> float:
        """Return when ``tick`` will next have something to do, unless something happens."""
        if self.state is State.CLOSING:
            return self._abort_at_s if self.opened_at_s else float("inf")
        if self.state is State.OPENING:
            return float("inf")
        free_at_s = self._window.free_at_s(now_s)
        due_s = min(self._unheard_at_s(), max(self._probe_due_s(), free_at_s))
        return min(due_s, free_at_s) if self._outbox else due_s

    @property
    def heartbeat_missing_at_s(self) -> float:
        """When the server's pings will have stopped, or its answer to ours be overdue."""
        return min(max(self.last_ping_s, self.opened_at_s) + PINGS_MISSING_S, self._pong_due_s)

    @property
    def carries(self) -> bool:
        """Whether what was subscribed arrives; other streams may be being asked for beside it."""
        return self.live_at_s > 0 and self.state is not State.CLOSING

    def heartbeat_missing(self, now_s: float) -> bool:
        """Say whether the server's heartbeat has stopped."""
        return now_s >= self.heartbeat_missing_at_s

    # How.

    def _listed(self, result: object, now_s: float) -> list[Action]:
        names = (
            {name for name in result if isinstance(name, str)} if isinstance(result, list) else ()
        )
        if not self._subscribed.issubset(names):
            return self.close("websocket_error", now_s)
        if self._subscribed != self._wanted:
            return self._reconcile_streams(now_s)
        self._become_live(now_s)
        return []

    def _become_live(self, now_s: float) -> None:
        self.state = State.LIVE
        self.live_at_s = self.live_at_s or now_s

    def _closing(self, now_s: float) -> list[Action]:
        self._abort_at_s = now_s + CLOSE_TIMEOUT_S
        return [Close(1000, self.close_reason)]

    def _unheard_at_s(self) -> float:
        """When an answer or any sign of life will be overdue."""
        overdue_s = float("inf")
        if self._awaiting:
            overdue_s = min(self._awaiting.values()) + self._limits.reply_within_s
        if self._limits.stale_after_s:
            heard_s = max(self.last_trade_s, self.last_ping_s, self.opened_at_s)
            overdue_s = min(overdue_s, heard_s + self._limits.stale_after_s)
        return overdue_s

    def _probe_due_s(self) -> float:
        if not self._limits.probe_every_s:
            return float("inf")
        return max(self._probed_at_s, self.opened_at_s) + self._limits.probe_every_s

    def _reconcile_streams(self, now_s: float) -> list[Action]:
        """Ask for the streams that are missing and give up those not wanted any more."""
        self.state = State.SUBSCRIBING
        for method, names in (
            ("SUBSCRIBE", sorted(self._wanted - self._subscribed)),
            ("UNSUBSCRIBE", sorted(self._subscribed - self._wanted)),
        ):
            self._outbox += [
                (method, names[start : start + NAMES_PER_SUBSCRIBE_MAX])
                for start in range(0, len(names), NAMES_PER_SUBSCRIBE_MAX)
            ]
        self._subscribed = set(self._wanted)
        if not self._outbox:
            self._become_live(now_s)
        return self._sendable(now_s)

    def _sendable(self, now_s: float) -> list[Action]:
        actions: list[Action] = []
        while self._outbox and self._window.take(now_s):
            method, params = self._outbox.pop(0)
            request: dict[str, object] = {"method": method}
            if params is not None:
                request["params"] = params
            request["id"] = self._next_request_id
            self._awaiting[self._next_request_id] = now_s
            self._next_request_id += 1
            actions.append(Send(msgspec.json.encode(request).decode()))
        return actions
