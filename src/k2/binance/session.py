"""PURE: the life of one WebSocket connection to Binance, without a socket or a clock.

Events go in (``opened``, ``replied``, ``closed``, ``tick`` ...), actions come out (``Connect``,
``Send``, ``Ping``, ``Close``). The shell in ``websocket.py`` performs them; tests read them.

    WAITING --tick--> CONNECTING --opened--> SUBSCRIBING --all acknowledged, list agrees--> LIVE
       ^                                                                                  |
       +------------------------------- closed (any reason) ------------------------------+
"""

from collections.abc import Sequence
from enum import Enum

import msgspec

from k2.binance.frames import ErrorReply, Reply
from k2.binance.limits import (
    NAMES_PER_SUBSCRIBE_MAX,
    STREAMS_PER_CONNECTION_MAX,
    SendWindow,
    backoff_s,
)
from k2.errors import StopError


class State(Enum):
    """Where the connection is in its life."""

    WAITING = "waiting"
    CONNECTING = "connecting"
    SUBSCRIBING = "subscribing"
    LIVE = "live"
    STOPPED = "stopped"


class Connect(msgspec.Struct, frozen=True):
    """Open the WebSocket."""


class Send(msgspec.Struct, frozen=True):
    """Send this text frame."""

    text: str


class Ping(msgspec.Struct, frozen=True):
    """Send a PING control frame (the optional client probe, contract C6)."""


class Close(msgspec.Struct, frozen=True):
    """Close the WebSocket; ``reason`` is a label of contract R003."""

    code: int
    reason: str


Action = Connect | Send | Ping | Close


class SessionLimits(msgspec.Struct, frozen=True):
    """The settings of a session, in seconds."""

    delay_min_s: float = 1.0
    delay_max_s: float = 60.0
    stale_after_s: float = 30.0
    reply_within_s: float = 10.0
    probe_every_s: float = 180.0
    """0 sends no client probe; the server's own pings are answered by the shell either way."""


class Session:
    """One connection's state. All times are seconds of one monotonic clock, given by the caller."""

    def __init__(self, stream_names: Sequence[str], limits: SessionLimits) -> None:
        if not stream_names:
            raise StopError("no streams to subscribe to: set BINANCE_SYMBOLS")
        if len(stream_names) > STREAMS_PER_CONNECTION_MAX:
            raise StopError(
                f"{len(stream_names)} streams on one connection, at most "
                f"{STREAMS_PER_CONNECTION_MAX}: name fewer in BINANCE_SYMBOLS"
            )
        self.state = State.WAITING
        self.attempt = 0
        """Failures since data last flowed."""
        self.connected_at_s = 0.0
        self.last_data_s = 0.0
        self.last_ping_s = 0.0
        """Written by the shell when the server's PING came: a quiet market is not a dead socket."""
        """Written by the shell at every trade: the one hot-path fact the session needs."""
        self.retry_at_s = 0.0
        self._limits = limits
        self._names = list(stream_names)
        self._outbox: list[str] = []
        self._awaiting: dict[int, float] = {}
        self._list_id = 0
        self._next_request_id = 1
        self._probed_at_s = 0.0
        self._window = SendWindow()

    def tick(self, now_s: float) -> list[Action]:
        """Do what is due: connect, send what the rate limit held back, notice silence."""
        if self.state is State.WAITING and now_s >= self.retry_at_s:
            self.state = State.CONNECTING
            return [Connect()]
        if self.state not in (State.SUBSCRIBING, State.LIVE):
            return []
        if any(now_s - sent_s > self._limits.reply_within_s for sent_s in self._awaiting.values()):
            return [Close(1000, "health_check_timeout")]
        silent_since_s = max(self.last_data_s, self.last_ping_s, self.connected_at_s)
        if 0 < self._limits.stale_after_s < now_s - silent_since_s:
            return [Close(1000, "health_check_timeout")]
        actions = self._sendable(now_s)
        due_s = max(self._probed_at_s, self.connected_at_s) + self._limits.probe_every_s
        if self._limits.probe_every_s and now_s >= due_s and self._window.take(now_s):
            self._probed_at_s = now_s
            actions.append(Ping())
        return actions

    def opened(self, now_s: float) -> list[Action]:
        """The handshake succeeded: subscribe in batches, as fast as the limit allows."""
        if self.state is State.STOPPED:  # stopped while the handshake was under way
            return [Close(1000, "shutdown")]
        self.state = State.SUBSCRIBING
        self.connected_at_s = now_s
        self._awaiting.clear()
        self._list_id = 0
        self._outbox = [
            self._request("SUBSCRIBE", self._names[start : start + NAMES_PER_SUBSCRIBE_MAX])
            for start in range(0, len(self._names), NAMES_PER_SUBSCRIBE_MAX)
        ]
        self._window = SendWindow()
        return self._sendable(now_s)

    def replied(self, message: Reply | ErrorReply, now_s: float) -> list[Action]:
        """Take one answer to a control message.

        An acknowledgement does not prove that a stream exists, so the session asks for the list
        once all batches are acknowledged and is LIVE only when the server's list agrees.
        """
        if isinstance(message, ErrorReply):
            return [Close(1000, "websocket_error")]
        if not isinstance(message.request_id, int):
            return []
        if self._awaiting.pop(message.request_id, None) is None:
            return []
        if message.request_id == self._list_id:
            listed = message.result if isinstance(message.result, list) else []
            if not {name for name in listed if isinstance(name, str)}.issuperset(self._names):
                return [Close(1000, "websocket_error")]
            self.state = State.LIVE
            return []
        if not self._awaiting and not self._outbox:
            self._outbox = [self._request("LIST_SUBSCRIPTIONS", None)]
            self._list_id = self._next_request_id - 1
        return self._sendable(now_s)

    def server_leaving(self) -> list[Action]:
        """The server announced its shutdown: leave now, what is missed comes back by REST."""
        return [Close(1000, "server_shutdown")]

    def closed(self, now_s: float, *, draw: float) -> list[Action]:
        """The connection ended or could not be opened: wait, then try again, for ever.

        ``attempt`` starts over only if data flowed; a server that accepts and drops at once is
        backed off from like one that refuses.
        """
        if self.state is State.STOPPED:
            return []
        if self.last_data_s > self.connected_at_s > 0:
            self.attempt = 0
        self.retry_at_s = now_s + backoff_s(
            attempt=self.attempt,
            delay_min_s=self._limits.delay_min_s,
            delay_max_s=self._limits.delay_max_s,
            draw=draw,
        )
        self.attempt += 1
        self.connected_at_s = 0.0
        self.state = State.WAITING
        return []

    def stop(self) -> list[Action]:
        """End for good."""
        connected = self.state in (State.SUBSCRIBING, State.LIVE)
        self.state = State.STOPPED
        return [Close(1000, "shutdown")] if connected else []

    def _request(self, method: str, params: list[str] | None) -> str:
        request: dict[str, object] = {"method": method}
        if params is not None:
            request["params"] = params
        request["id"] = self._next_request_id
        self._next_request_id += 1
        return msgspec.json.encode(request).decode()

    def _sendable(self, now_s: float) -> list[Action]:
        actions: list[Action] = []
        while self._outbox and self._window.take(now_s):
            text = self._outbox.pop(0)
            self._awaiting[msgspec.json.decode(text)["id"]] = now_s
            actions.append(Send(text))
        return actions
