import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import pytest

from k2.binance import session as session_module
from k2.binance import websocket as websocket_module
from k2.binance.frames import ErrorReply, Reply, ServerShutdown, frame_decoder
from k2.binance.leg import MANUAL, SCHEDULED, Leg, LegLimits, Replaced
from k2.binance.session import Session, SessionLimits
from k2.binance.websocket import Socket, SocketEvents, connect
from k2.errors import RetryError
from k2.ingestion.feed import Feed
from k2.ingestion.host import MACHINE
from k2.market import StreamKind, Trade
from k2.simulator import Exchange, ExchangeConfig

WaitUntil = Callable[..., Awaitable[None]]

SWIFT = LegLimits(delay_min_s=0.01, delay_max_s=0.05, session=SessionLimits(probe_every_s=0))


class _PeerSocket:
    """A socket in memory, and the peer at its other end."""

    def __init__(self, peer: "_Peer", events: SocketEvents) -> None:
        self.events = events
        self.sent: list[dict[str, Any]] = []
        self.closed_with: int | None = None
        self.aborted = False
        self.is_open = True
        self._peer = peer
        self._streams: set[str] = set()
        self._ended = asyncio.get_running_loop().create_future()

    def send_text(self, text: str) -> None:
        request = json.loads(text)
        self.sent.append(request)
        asyncio.get_running_loop().call_soon(self._answer, request)

    def send_ping(self) -> None:
        asyncio.get_running_loop().call_soon(self.events.ponged)

    def close(self, code: int) -> None:
        self.closed_with = code
        if self._peer.takes_part_in_closing:
            asyncio.get_running_loop().call_soon(self.end)

    def abort(self) -> None:
        self.aborted = True
        asyncio.get_running_loop().call_soon(self.end)

    async def wait_ended(self) -> None:
        await asyncio.shield(self._ended)

    def deliver(self, message: dict[str, Any]) -> None:
        try:
            self.events.text(json.dumps(message).encode(), 0)
        except LookupError as exc:  # as the library does: end the socket, raise from wait_ended
            self.end(exc)

    def end(self, exc: Exception | None = None) -> None:
        if not self.is_open:
            return
        self.is_open = False
        self._peer.open_counts.append(len(self._peer.open))
        self.events.ended()
        if exc is None:
            self._ended.set_result(None)
        else:
            self._ended.set_exception(exc)

    def _answer(self, request: dict[str, Any]) -> None:
        if not self.is_open:
            return
        self._streams |= set(request.get("params", ()))
        listed = request["method"] == "LIST_SUBSCRIPTIONS"
        self.deliver({"id": request["id"], "result": sorted(self._streams) if listed else None})


class _Peer:
    """Accepts sockets, or refuses them."""

    def __init__(self) -> None:
        self.sockets: list[_PeerSocket] = []
        self.open_counts: list[int] = []
        """How many were open after each end."""
        self.attempts = 0
        self.refusals_left = 0
        self.takes_part_in_closing = True
        self.accepting = asyncio.Event()
        self.accepting.set()

    @property
    def open(self) -> list[_PeerSocket]:
        return [socket for socket in self.sockets if socket.is_open]

    async def connect(self, url: str, events: SocketEvents) -> Socket:
        self.attempts += 1
        await self.accepting.wait()
        if self.refusals_left:
            self.refusals_left -= 1
            raise RetryError(f"{url}: refused")
        socket = _PeerSocket(self, events)
        self.sockets.append(socket)
        return socket


class _Wiring:
    """Takes down what the feed tells."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.ids: list[int] = []
        self.raises = False
        self._decode = frame_decoder(StreamKind.AGG_TRADE)

    def frame(
        self, leg: Leg, session: Session, payload: bytes, recv_ts_ns: int
    ) -> Reply | ErrorReply | ServerShutdown | None:
        frame = self._decode(payload, recv_ts_ns)
        if not isinstance(frame, Trade):
            return frame
        if self.raises:
            raise LookupError("a bug of ours")
        session.saw(frame.symbol, frame.source_id, MACHINE.monotonic_s())
        self.ids.append(frame.source_id)
        return None

    def connected(self, leg: Leg) -> None:
        self.told.append("connected")

    def live(self, leg: Leg, session: Session) -> None:
        self.told.append("live")

    def pinged(self, leg: Leg) -> None:
        self.told.append("pinged")

    def ponged(self, leg: Leg) -> None:
        self.told.append("ponged")

    def replaced(self, leg: Leg, action: Replaced) -> None:
        self.told.append(f"replaced {action.reason} {action.overlapped}")

    def disconnected(self, leg: Leg, session: Session, reason: str) -> None:
        self.told.append(f"disconnected {reason}")

    def unreachable(self, leg: Leg, problem: RetryError) -> None:
        self.told.append(f"unreachable {problem}")


class _Running:
    """A feed, its wiring and its peer."""

    def __init__(
        self,
        *,
        limits: LegLimits = SWIFT,
        url: str = "ws://peer",
        connector: Callable[[str, SocketEvents], Awaitable[Socket]] | None = None,
    ) -> None:
        self.peer = _Peer()
        self.wiring = _Wiring()
        self.allowed = asyncio.Event()
        self.allowed.set()
        self.leg = Leg(
            "a", ["BTCUSDT"], StreamKind.AGG_TRADE, limits, first_age_s=1e9, draw=lambda: 0.0
        )
        self.feed = Feed(
            self.leg,
            url,
            self.wiring,
            connect=connector or self.peer.connect,
            may_connect=self._may_connect,
            host=MACHINE,
        )

    async def _may_connect(self) -> None:
        await self.allowed.wait()


@asynccontextmanager
async def _stopped_at_the_end(running: _Running) -> AsyncIterator[None]:
    task = asyncio.create_task(running.feed.run())
    try:
        yield
        running.feed.stop()
        async with asyncio.timeout(5):
            await task
    finally:
        task.cancel()


def _trade(agg_id: int) -> dict[str, Any]:
    return {
        "e": "aggTrade",
        "E": 1_767_225_600_123_000,
        "s": "BTCUSDT",
        "a": agg_id,
        "p": "1.0",
        "q": "1.0",
        "f": agg_id,
        "l": agg_id,
        "T": 1_767_225_600_122_000,
        "m": True,
        "M": True,
    }


@pytest.fixture
def short_closing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "CLOSE_TIMEOUT_S", 0.05)


def test_it_subscribes_says_when_it_is_live_and_hands_frames_on(wait_until: WaitUntil) -> None:
    async def scenario() -> None:
        running = _Running()
        async with _stopped_at_the_end(running):
            await wait_until(lambda: running.leg.live)
            (socket,) = running.peer.sockets
            assert socket.sent[0]["params"] == ["btcusdt@aggTrade"]
            for agg_id in (1, 2, 3):
                socket.deliver(_trade(agg_id))
        assert running.wiring.ids == [1, 2, 3]
        assert running.wiring.told == ["connected", "live", "disconnected shutdown"]
        assert socket.closed_with == 1000

    asyncio.run(scenario())


def test_it_comes_back_after_refusals_and_lost_sockets(wait_until: WaitUntil) -> None:
    async def scenario() -> None:
        running = _Running()
        running.peer.refusals_left = 3
        async with _stopped_at_the_end(running):
            for lives in (1, 2, 3):
                await wait_until(lambda: running.wiring.told.count("live") == lives)  # noqa: B023
                running.peer.open[0].end()
            await wait_until(lambda: running.leg.live)
        told = running.wiring.told
        assert told[:5] == ["unreachable ws://peer: refused"] * 3 + ["connected", "live"]
        assert told.count("disconnected unexpected_error") == 3

    asyncio.run(scenario())


def test_what_the_wiring_raises_on_a_frame_ends_the_feed(wait_until: WaitUntil) -> None:
    async def scenario() -> None:
        running = _Running()
        task = asyncio.create_task(running.feed.run())
        await wait_until(lambda: running.leg.live)
        running.leg.rotate(MANUAL, MACHINE.monotonic_s())
        running.peer.accepting.clear()
        running.feed.perform([])
        await wait_until(lambda: running.peer.attempts == 2)
        running.wiring.raises = True
        running.peer.sockets[0].deliver(_trade(1))
        with pytest.raises(ExceptionGroup) as raised:
            async with asyncio.timeout(5):
                await task
        assert raised.group_contains(LookupError, match="a bug of ours")
        await wait_until(lambda: not running.peer.open)

    asyncio.run(scenario())


def test_a_cancelled_feed_leaves_no_socket_open(wait_until: WaitUntil) -> None:
    async def scenario() -> None:
        running = _Running()
        task = asyncio.create_task(running.feed.run())
        await wait_until(lambda: running.leg.live)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await wait_until(lambda: not running.peer.open)
        assert running.peer.sockets[0].aborted

    asyncio.run(scenario())


def test_stop_does_not_wait_for_the_turn_to_connect(wait_until: WaitUntil) -> None:
    async def scenario() -> None:
        running = _Running()
        running.allowed.clear()
        async with _stopped_at_the_end(running):
            await wait_until(lambda: running.leg.newcomer is not None)
        assert running.peer.sockets == []
        assert running.leg.ended

    asyncio.run(scenario())


def test_a_socket_that_opens_after_stop_is_closed_again(wait_until: WaitUntil) -> None:
    async def scenario() -> None:
        running = _Running()
        running.peer.accepting.clear()
        task = asyncio.create_task(running.feed.run())
        await wait_until(lambda: running.peer.attempts == 1)
        running.feed.stop()
        running.peer.accepting.set()
        async with asyncio.timeout(5):
            await task
        assert [socket.closed_with for socket in running.peer.sockets] == [1000]
        assert running.peer.open == []

    asyncio.run(scenario())


@pytest.mark.usefixtures("short_closing")
def test_a_peer_that_ignores_the_closing_is_dropped(wait_until: WaitUntil) -> None:
    async def scenario() -> None:
        running = _Running()
        running.peer.takes_part_in_closing = False
        async with _stopped_at_the_end(running):
            await wait_until(lambda: running.leg.live)
        (socket,) = running.peer.sockets
        assert socket.closed_with == 1000
        assert socket.aborted

    asyncio.run(scenario())


def test_a_server_that_leaves_is_replaced_before_it_is_closed(wait_until: WaitUntil) -> None:
    async def scenario() -> None:
        running = _Running()
        async with _stopped_at_the_end(running):
            await wait_until(lambda: running.leg.live)
            (old,) = running.peer.sockets
            old.deliver(_trade(1))
            old.deliver({"e": "serverShutdown", "E": 1_767_225_600_123_000})
            await wait_until(lambda: running.wiring.told.count("live") == 2)
            assert old.is_open
            for socket in list(running.peer.open):
                socket.deliver(_trade(2))
            await wait_until(lambda: not old.is_open)
            assert running.peer.open_counts == [1]
        assert "replaced server_shutdown True" in running.wiring.told
        assert "disconnected server_shutdown" in running.wiring.told

    asyncio.run(scenario())


def test_being_stopped_for_a_while_closes_nothing(wait_until: WaitUntil) -> None:
    async def scenario() -> None:
        ahead_s = 0.0
        limits = LegLimits(session=SessionLimits(stale_after_s=30.0, probe_every_s=0))
        running = _Running(limits=limits)
        running.feed.host = MACHINE._replace(
            monotonic_s=lambda: MACHINE.monotonic_s() + ahead_s,
        )
        async with _stopped_at_the_end(running):
            await wait_until(lambda: running.leg.live)
            session = running.leg.current
            assert session is not None
            await wait_until(lambda: not running.feed._changed.is_set())
            ahead_s = 100.0
            running.feed.perform([])
            await wait_until(lambda: session.last_ping_s > 0)
            assert running.leg.live
        assert "disconnected health_check_timeout" not in running.wiring.told

    asyncio.run(scenario())


def test_over_a_real_socket_rotations_lose_nothing_and_never_leave_the_exchange_unheard(
    wait_until: WaitUntil,
) -> None:
    async def scenario() -> None:
        async with Exchange(ExchangeConfig(symbols=("BTCUSDT",), rate=500)) as exchange:
            limits = LegLimits(
                delay_min_s=0.01,
                delay_max_s=0.05,
                connection_age_max_s=1.0,
                session=SessionLimits(probe_every_s=0.5),
            )
            running = _Running(limits=limits, url=exchange.ws_url, connector=connect)
            wiring, counts = running.wiring, list[int]()

            def rotated() -> bool:
                if running.leg.live:
                    counts.append(len(exchange.streams.connections))
                return wiring.told.count("disconnected scheduled_rotation") >= 3

            async with _stopped_at_the_end(running):
                await wait_until(rotated, within_s=20)
                exchange.stop_trading()
                newest = exchange.newest()["BTCUSDT"]["aggTrade"]
                await wait_until(lambda: wiring.ids[-1] == newest)
            assert wiring.told.count(f"replaced {SCHEDULED} True") >= 3
            assert "ponged" in wiring.told
            assert set(counts) <= {1, 2}
            assert {1, 2} <= set(counts)
            heard = sorted(set(wiring.ids))
            assert all(after == before + 1 for before, after in pairwise(heard))
            assert len(wiring.ids) > len(heard)  # the overlap was heard twice
            await wait_until(lambda: not exchange.streams.connections)

    asyncio.run(scenario())


def test_what_listens_and_is_no_exchange_is_unreachable(wait_until: WaitUntil) -> None:
    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async def scenario() -> None:
        server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        running = _Running(url=f"ws://127.0.0.1:{port}", connector=connect)
        async with server, _stopped_at_the_end(running):
            await wait_until(lambda: len(running.wiring.told) >= 3)
        assert all(f"unreachable ws://127.0.0.1:{port}" in told for told in running.wiring.told)
        assert running.leg.ended

    asyncio.run(scenario())


def test_what_listens_and_says_nothing_is_unreachable_after_a_while(
    wait_until: WaitUntil, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(websocket_module, "CONNECT_TIMEOUT_S", 0.05)

    async def scenario() -> None:
        server = await asyncio.start_server(lambda _, __: None, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        running = _Running(url=f"ws://127.0.0.1:{port}", connector=connect)
        async with server, _stopped_at_the_end(running):
            await wait_until(lambda: len(running.wiring.told) >= 2, within_s=3)
        assert set(running.wiring.told) == {f"unreachable ws://127.0.0.1:{port}: TimeoutError"}

    asyncio.run(scenario())
