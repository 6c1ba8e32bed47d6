"""A pretended venue round one leg: answers what it sends, when the test says so."""

import json
from typing import Any

from k2.binance.frames import ErrorReply, Reply
from k2.binance.leg import Leg, LegAction, Open, Replaced
from k2.binance.session import Abort, Close, Ping, Send, Session, State


class LegWorld:
    """The sockets of a leg. Every event is followed by a tick, as the driver does it."""

    def __init__(self, leg: Leg, *, now_s: float) -> None:
        self.leg = leg
        self.now_s = now_s
        self.opening: list[Session] = []
        self.open: list[Session] = []
        self.requests: dict[Session, list[dict[str, Any]]] = {}
        self.streams: dict[Session, set[str]] = {}
        self.closes: list[tuple[Session, Close]] = []
        self.replaced: list[Replaced] = []
        self.pings = 0
        self.aborted: list[Session] = []
        self.next_ids: dict[str, int] = {}

    # Time.

    def tick(self) -> list[LegAction]:
        """Let the leg do what is due now."""
        actions = self.leg.tick(self.now_s)
        self.perform(actions)
        return actions

    def run(self, seconds: float) -> None:
        """Let time pass as the driver does: from one due time to the next."""
        until_s = self.now_s + seconds
        ticks_at_once = 0
        while (due_s := self.leg.next_due_s(self.now_s)) <= until_s:
            ticks_at_once = ticks_at_once + 1 if due_s <= self.now_s else 0
            assert ticks_at_once < 5, f"sent round in one instant: due {due_s} at {self.now_s}"
            self.now_s = max(self.now_s, due_s)
            self.tick()
        self.now_s = until_s

    # What the venue and the network do.

    def accept(self, session: Session) -> None:
        """Finish the handshake of a session."""
        self.opening.remove(session)
        self.open.append(session)
        self.perform(self.leg.opened(session, self.now_s))
        self.tick()

    def answer(self, session: Session) -> None:
        """Answer the oldest request of a session."""
        request = self.requests[session].pop(0)
        streams, result = self.streams[session], None
        if request["method"] == "SUBSCRIBE":
            streams.update(request["params"])
        elif request["method"] == "UNSUBSCRIBE":
            streams.difference_update(request["params"])
        else:
            result = sorted(streams)
        self.perform(self.leg.replied(session, Reply(request["id"], result), self.now_s))
        self.tick()

    def refuse(self, session: Session) -> None:
        """Answer the oldest request of a session with a refusal."""
        request = self.requests[session].pop(0)
        self.perform(
            self.leg.replied(session, ErrorReply(2, "no", request["id"]), self.now_s),
        )
        self.tick()

    def make_live(self, session: Session) -> None:
        """Accept a session and answer it until it is live."""
        self.accept(session)
        while session.state is State.SUBSCRIBING:
            while not self.requests[session]:
                self.run(0.1)
            self.answer(session)
        assert session.state is State.LIVE

    def end(self, session: Session) -> None:
        """Let a socket be gone, or its opening fail."""
        (self.opening if session in self.opening else self.open).remove(session)
        self.requests.pop(session, None)
        self.leg.closed(session, self.now_s)
        self.tick()

    def trade(self, symbol: str, *, deaf: Session | None = None) -> int:
        """Publish the next id of a symbol to all who are subscribed."""
        source_id = self.next_ids.get(symbol, 100)
        self.next_ids[symbol] = source_id + 1
        for session in self.open:
            if f"{symbol.lower()}@aggTrade" in self.streams[session] and session is not deaf:
                session.saw(symbol, source_id, self.now_s)
        return source_id

    def ping(self) -> None:
        """Ping every connection."""
        for session in self.open:
            session.last_ping_s = self.now_s

    # What the leg wants.

    def perform(self, actions: list[LegAction]) -> None:
        """Do what the leg decided."""
        for session, action in actions:
            if isinstance(action, Open):
                self.opening.append(session)
                self.requests[session], self.streams[session] = [], set()
            elif isinstance(action, Replaced):
                self.replaced.append(action)
            elif isinstance(action, Send):
                self.requests[session].append(json.loads(action.text))
            elif isinstance(action, Ping):
                self.pings += 1
            elif isinstance(action, Close):
                self.closes.append((session, action))
            else:
                assert isinstance(action, Abort)
                self.aborted.append(session)

    @property
    def current(self) -> Session:
        """The leg's current connection, which there is."""
        assert self.leg.current is not None
        return self.leg.current

    @property
    def newcomer(self) -> Session:
        """The leg's newcomer, which there is."""
        assert self.leg.newcomer is not None
        return self.leg.newcomer
