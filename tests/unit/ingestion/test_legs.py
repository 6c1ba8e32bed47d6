import asyncio
import json
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from k2.binance.frames import frame_decoder
from k2.binance.leg import Leg, LegLimits
from k2.binance.session import SessionLimits
from k2.binance.websocket import Socket, SocketEvents
from k2.errors import RetryError
from k2.ingestion.legs import LegFigures, Legs
from k2.ingestion.ports import Ports
from k2.kafka.clients import LIBRARY
from k2.market import StreamKind
from unit.ingestion.shard_world import FakeRest, until, virtual_host, virtually

URLS = ("ws://a/ws", "ws://b/ws")


class VenueSocket:
    """One connection: what it is subscribed to, and answers to every request."""

    def __init__(self, url: str, events: SocketEvents) -> None:
        self.url = url
        self.streams: set[str] = set()
        self.requests: list[dict[str, Any]] = []
        self.closed_with: int | None = None
        self.open = True
        self._events = events
        self._ended = asyncio.Event()

    def send_text(self, text: str) -> None:
        asyncio.get_running_loop().call_soon(self._answer, json.loads(text))

    def send_ping(self) -> None:
        self._events.ponged()

    def close(self, code: int) -> None:
        self.closed_with = code
        asyncio.get_running_loop().call_soon(self.end)

    def abort(self) -> None:
        self.end()

    async def wait_ended(self) -> None:
        await self._ended.wait()

    def end(self) -> None:
        if self.open:
            self.open = False
            self._events.ended()
            self._ended.set()

    def _answer(self, request: dict[str, Any]) -> None:
        self.requests.append(request)
        result = None
        if request["method"] == "SUBSCRIBE":
            self.streams |= set(request["params"])
        elif request["method"] == "UNSUBSCRIBE":
            self.streams -= set(request["params"])
        else:
            result = sorted(self.streams)
        self._events.text(json.dumps({"id": request["id"], "result": result}).encode(), 0)


class Scene:
    """Two legs, the venue they connect to, and what they tell."""

    def __init__(self, *, urls: tuple[str, ...] = URLS, streams_max: int = 3) -> None:
        self.sockets: list[VenueSocket] = []
        self.away: set[str] = set()
        self.told: Counter[str] = Counter()
        limits = LegLimits(session=SessionLimits(stale_after_s=0, probe_every_s=0))
        ports = Ports(
            host=virtual_host(),
            connect=self._connect,
            may_connect=self._may_connect,
            rest=FakeRest(),
            clients=LIBRARY,
            worker=_no_worker,
        )
        self.legs = Legs(
            urls,
            self,
            kind=StreamKind.AGG_TRADE,
            limits=limits,
            ports=ports,
            streams_max=streams_max,
        )

    def __getattr__(self, name: str) -> Callable[..., None]:
        """Take down an event and nothing else about it."""

        def event(*_: object) -> None:
            self.told[name] += 1

        return event

    def frame(self, _leg: Leg, _session: object, payload: bytes, recv_ts_ns: int) -> Any:
        return frame_decoder(StreamKind.AGG_TRADE)(payload, recv_ts_ns)

    async def play(self, story: Coroutine[Any, Any, None]) -> None:
        async with asyncio.timeout(10_000), asyncio.TaskGroup() as group:
            self.legs.run_in(group)
            await story
            self.legs.stop()

    def carried(self, url: str) -> list[list[str]]:
        """The symbols of each open connection of an address."""
        return [
            sorted(name.partition("@")[0].upper() for name in socket.streams)
            for socket in self.sockets
            if socket.open and socket.url == url
        ]

    async def _connect(self, url: str, events: SocketEvents) -> Socket:
        await asyncio.sleep(0.05)
        if url in self.away:
            raise RetryError("refused")
        socket = VenueSocket(url, events)
        self.sockets.append(socket)
        return socket

    async def _may_connect(self) -> None:
        return


def _no_worker(_name: str) -> Any:
    raise AssertionError


def test_every_symbol_is_carried_on_every_leg_in_lines_of_bounded_length() -> None:
    async def tell() -> None:
        scene = Scene()
        scene.legs.carry(["D", "A", "C", "B", "E"])

        async def story() -> None:
            assert not scene.legs.live
            await until(lambda: scene.legs.live)
            for url in URLS:
                await until(lambda url=url: len(scene.carried(url)) == 2)  # type: ignore[misc]
                assert sorted(scene.carried(url)) == [["A", "B", "C"], ["D", "E"]]
            assert [feed.leg.name for feed in scene.legs.feeds] == ["a", "b", "a2", "b2"]
            assert list(scene.legs.figures) == ["a", "b"]
            of_lines = [scene.legs.figures_of(feed.leg) for feed in scene.legs.feeds]
            assert all(
                one is scene.legs.figures[leg] for one, leg in zip(of_lines, "abab", strict=True)
            )

        await scene.play(story())
        assert {socket.closed_with for socket in scene.sockets} == {1000}

    virtually(tell())


def test_one_leg_is_enough_to_hear_everything_but_of_every_line() -> None:
    async def tell() -> None:
        scene = Scene()
        scene.away = {URLS[1]}
        scene.legs.carry(["A", "B", "C", "D"])

        async def story() -> None:
            await until(lambda: scene.legs.live)
            scene.away = set(URLS)
            scene.sockets[-1].end()
            await asyncio.sleep(5)
            assert not scene.legs.live
            scene.away = {URLS[0]}
            await until(lambda: scene.legs.live)

        await scene.play(story())

    virtually(tell())


def test_before_anything_is_carried_nothing_is_heard() -> None:
    async def tell() -> None:
        assert not Scene().legs.live

    virtually(tell())


def test_a_symbol_added_and_one_removed_leave_the_streams_of_the_others_alone() -> None:
    async def tell() -> None:
        scene = Scene()
        scene.legs.carry(["A", "B", "C"])

        async def story() -> None:
            await until(lambda: scene.legs.live and len(scene.sockets) == 2)
            scene.legs.carry(["A", "C", "D"])
            await asyncio.sleep(10)
            for url in URLS:
                assert scene.carried(url) == [["A", "C", "D"]]
            for socket in scene.sockets:
                asked = [(r["method"], r.get("params")) for r in socket.requests]
                assert asked[0] == ("SUBSCRIBE", ["a@aggTrade", "b@aggTrade", "c@aggTrade"])
                assert ("SUBSCRIBE", ["d@aggTrade"]) in asked
                assert ("UNSUBSCRIBE", ["b@aggTrade"]) in asked
                assert sum(method == "SUBSCRIBE" for method, _ in asked) == 2
            assert len(scene.sockets) == 2

        await scene.play(story())

    virtually(tell())


def test_what_finds_no_room_gets_a_line_of_its_own_while_running() -> None:
    async def tell() -> None:
        scene = Scene()
        scene.legs.carry(["A", "B", "C"])

        async def story() -> None:
            await until(lambda: scene.legs.live)
            scene.legs.carry(["A", "B", "C", "D"])
            assert not scene.legs.live
            await until(lambda: scene.legs.live)
            await until(lambda: len(scene.sockets) == 4)
            await asyncio.sleep(5)
            scene.legs.carry(["A", "B", "D", "E"])  # E takes the place that C left
            await asyncio.sleep(5)
            for url in URLS:
                assert sorted(scene.carried(url)) == [["A", "B", "E"], ["D"]]
            assert len(scene.sockets) == 4

        await scene.play(story())

    virtually(tell())


def test_the_connections_of_two_legs_are_not_replaced_at_the_same_time() -> None:
    async def tell() -> None:
        scene = Scene()
        scene.legs.carry(["A"])
        first, second = (feed.leg for feed in scene.legs.feeds)

        async def story() -> None:
            await until(lambda: first.live and second.live)
            apart_s = abs(first._rotate_at_s - second._rotate_at_s)
            assert apart_s > LegLimits().connection_age_max_s / 4

        await scene.play(story())

    virtually(tell())


def test_each_leg_is_called_and_looks_again() -> None:
    async def tell() -> None:
        scene = Scene()
        scene.legs.carry(["A", "B", "C", "D"])
        names: list[str] = []
        scene.legs.each(lambda leg: names.append(leg.name))
        assert names == ["a", "b", "a2", "b2"]

    virtually(tell())


def test_one_leg_alone() -> None:
    async def tell() -> None:
        scene = Scene(urls=URLS[:1])
        scene.legs.carry(["A", "B", "C", "D"])

        async def story() -> None:
            await until(lambda: scene.legs.live)
            assert sorted(scene.carried(URLS[0])) == [["A", "B", "C"], ["D"]]

        await scene.play(story())
        assert list(scene.legs.figures) == ["a"]

    virtually(tell())


def test_how_late_a_leg_is_is_smoothed() -> None:
    figures = LegFigures()
    for _ in range(1_000):
        figures.late(0.02)
    figures.late(5.0)
    assert figures.copies == 1_001
    assert figures.lag_s == pytest.approx(0.02 + 5 / 100, rel=0.05)
