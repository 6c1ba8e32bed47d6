"""Faults ordered over the control endpoints, as two clients on loopback see them."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import WSMsgType

from k2.market import StreamKind
from k2.simulator import Exchange, ExchangeConfig

AGG = StreamKind.AGG_TRADE
WaitUntil = Callable[..., Awaitable[None]]
Socket = aiohttp.ClientWebSocketResponse
PATH = "/stream?streams=btcusdt@aggTrade"
UNLIMITED = 10**6


class Bench:
    """A frozen exchange, its control endpoints, and clients (legs) of its streams."""

    def __init__(self, exchange: Exchange, session: aiohttp.ClientSession) -> None:
        self.exchange = exchange
        self._session = session
        self._legs: list[Socket] = []

    async def ask(self, method: str, path: str, body: object = None, *, status: int = 200) -> Any:
        url = self.exchange.rest_url + path
        async with self._session.request(method, url, json=body) as response:
            assert response.status == status, await response.text()
            return await response.json()

    async def fault(self, fault: str, **fields: Any) -> Any:
        return await self.ask("POST", "/control/stream-faults", {"fault": fault, **fields})

    async def status(self) -> Any:
        return await self.ask("GET", "/control/status")

    async def leg(self, path: str = PATH) -> Socket:
        number = self.exchange.streams.counts["connections opened"] + 1
        leg = await self._session.ws_connect(self.exchange.ws_url + path, autoping=False)
        while number not in self.exchange.streams.connections:  # noqa: ASYNC110 ends at once
            await asyncio.sleep(0)
        self._legs.append(leg)  # one that nobody holds is closed
        return leg

    async def rest_ids(self, from_id: int, *, limit: int = 1000) -> list[int]:
        query = f"symbol=BTCUSDT&fromId={from_id}&limit={limit}"
        return [row["a"] for row in await self.ask("GET", f"/api/v3/aggTrades?{query}")]

    def newest(self, symbol: str = "BTCUSDT") -> int:
        return self.exchange.newest().get(symbol, {}).get("aggTrade", -1)

    async def trade(self, aggregates: int, *, symbol: str = "BTCUSDT") -> None:
        """Let at least so many more aggregates be published, then freeze again."""
        until = self.exchange.ledger.count(symbol, AGG) + aggregates
        self.exchange.start_trading()
        async with asyncio.timeout(20):
            while self.exchange.ledger.count(symbol, AGG) < until:  # noqa: ASYNC110 no event
                await asyncio.sleep(0.002)
        self.exchange.stop_trading()


@contextlib.asynccontextmanager
async def _bench(**changes: Any) -> AsyncIterator[Bench]:
    defaults: dict[str, Any] = {
        "symbols": ("BTCUSDT", "ETHUSDT"),
        "rate": 2000.0,
        "tick_s": 0.005,
        "weight_max": 10**6,
        "control_frames_max": UNLIMITED,
    }
    config = ExchangeConfig(**(defaults | changes))
    async with (
        asyncio.timeout(40),
        Exchange(config) as exchange,
        aiohttp.ClientSession() as session,
    ):
        exchange.stop_trading()
        bench = Bench(exchange, session)
        yield bench


async def _json(leg: Socket) -> Any:
    while True:
        message = await leg.receive(timeout=10)
        if message.type is not WSMsgType.PING:
            break
    assert message.type is WSMsgType.TEXT, message
    return json.loads(message.data)


async def _waiting(leg: Socket) -> list[Any]:
    """All events sent to a leg so far: those before the reply to a question asked now."""
    await leg.send_json({"method": "LIST_SUBSCRIPTIONS", "id": 1})
    events = []
    while "id" not in (received := await _json(leg)):
        events.append(received.get("data", received))
    return events


async def _ids(leg: Socket) -> list[int]:
    return [event["a"] for event in await _waiting(leg)]


def test_one_leg_misses_ids_that_the_other_and_rest_have() -> None:
    async def scenario() -> None:
        async with _bench() as bench:
            old, new = await bench.leg(), await bench.leg()
            ordered = await bench.fault("skip", which="oldest", symbol="BTCUSDT", count=3)
            assert ordered == {"number": 1, "connections": [1]}
            await bench.trade(10)
            ids = await _ids(new)
            assert ids == list(range(ids[0], bench.newest() + 1))
            assert await _ids(old) == ids[3:]
            assert await bench.rest_ids(ids[0]) == ids
            assert (await bench.status())["counts"]["fault skip"] == 3

    asyncio.run(scenario())


def test_both_legs_miss_the_same_ids() -> None:
    async def scenario() -> None:
        async with _bench() as bench:
            legs = [await bench.leg(), await bench.leg()]
            await bench.trade(1)
            before = bench.newest()
            for leg in legs:
                assert (await _ids(leg))[-1] == before
            assert (await bench.fault("skip", count=4))["connections"] == [1, 2]
            await bench.trade(10)
            for leg in legs:
                assert await _ids(leg) == list(range(before + 5, bench.newest() + 1))

    asyncio.run(scenario())


@pytest.mark.parametrize("path", [PATH, "/ws/btcusdt@aggTrade?timeUnit=MICROSECOND"])
def test_duplicated_reordered_absurd_and_extended_events(path: str) -> None:
    async def scenario() -> None:
        async with _bench() as bench:
            leg = await bench.leg(path)
            await bench.trade(1)
            await _waiting(leg)
            first = bench.newest() + 1

            await bench.fault("duplicate", count=2)
            await bench.trade(5)
            assert (await _ids(leg))[:5] == [first, first, first + 1, first + 1, first + 2]

            first = bench.newest() + 1
            await bench.fault("reorder", count=4, block=2)
            await bench.trade(5)
            order = [first + 1, first, first + 3, first + 2, first + 4]
            assert (await _ids(leg))[:5] == order

            # What a block still holds goes out when the fault is forgotten.
            first = bench.newest() + 1
            await bench.fault("reorder", count=1000, block=1000)
            await bench.trade(5)
            assert await _ids(leg) == []
            await bench.ask("DELETE", "/control/stream-faults")
            assert await _ids(leg) == list(range(bench.newest(), first - 1, -1))

            first = bench.newest() + 1
            await bench.fault("absurd_id", symbol="BTCUSDT")
            await bench.fault("absurd_id", symbol="BTCUSDT", offset=-(10**9))
            await bench.trade(3)
            # The second fault strikes the event before the first one's copy.
            assert (await _ids(leg))[:3] == [first, first - 10**9, first + 10**9]

            await bench.fault("extra_field", count=1)
            await bench.trade(3)
            events = await _waiting(leg)
            assert set(events[0]) - set(events[1]) == {"Y"}
            assert set(events[1]) == set("eEsapqflTmM")

    asyncio.run(scenario())


def test_strange_frames_come_at_once() -> None:
    async def scenario() -> None:
        async with _bench() as bench:
            combined, raw = await bench.leg(), await bench.leg("/ws/btcusdt@aggTrade")
            await bench.fault("malformed", count=5, which=1)
            for _ in range(5):
                text = (await combined.receive(timeout=10)).data
                with pytest.raises(json.JSONDecodeError):
                    json.loads(text)
            await bench.fault("malformed", which=2, text='{"e":"aggTrade"}')
            assert await _json(raw) == {"e": "aggTrade"}
            await bench.fault("unknown_event", count=2)
            for _ in range(2):
                assert (await _json(raw))["e"] == "somethingNew"
                wrapped = await _json(combined)
                assert wrapped["data"]["e"] == "somethingNew"
                assert wrapped["stream"]

    asyncio.run(scenario())


def test_a_silent_stream_stays_listed_and_the_others_go_on() -> None:
    async def scenario() -> None:
        async with _bench() as bench:
            leg = await bench.leg("/stream?streams=btcusdt@aggTrade/ethusdt@aggTrade")
            number = (await bench.fault("silent", symbol="BTCUSDT"))["number"]
            await bench.trade(20)
            assert {event["s"] for event in await _waiting(leg)} == {"ETHUSDT"}
            await leg.send_json({"method": "LIST_SUBSCRIPTIONS", "id": 2})
            assert len((await _json(leg))["result"]) == 2
            # A connection opened later suffers it too, until it is cancelled.
            later = await bench.leg()
            await bench.trade(5)
            assert await _waiting(later) == []
            await bench.ask("DELETE", f"/control/stream-faults/{number}")
            await bench.trade(5)
            assert await _ids(later) == await _ids_of(leg, "BTCUSDT")

    async def _ids_of(leg: Socket, symbol: str) -> list[int]:
        return [event["a"] for event in await _waiting(leg) if event["s"] == symbol]

    asyncio.run(scenario())


def test_a_stalled_connection_pings_and_replies_and_sends_its_events_late(
    wait_until: WaitUntil,
) -> None:
    async def scenario() -> None:
        async with _bench(ping_interval_s=0.05) as bench:
            leg, other = await bench.leg(), await bench.leg()
            number = (await bench.fault("stall", which=1))["number"]
            await bench.trade(10)
            for _ in range(2):
                assert (await leg.receive(timeout=10)).type is WSMsgType.PING
            assert await _waiting(leg) == []
            ids = await _ids(other)
            assert len(ids) >= 10
            await bench.ask("DELETE", f"/control/stream-faults/{number}")
            await bench.trade(1)
            assert await _ids(leg) == ids + await _ids(other)

    asyncio.run(scenario())


def test_a_stall_ends_by_itself_and_is_bounded(wait_until: WaitUntil) -> None:
    async def scenario() -> None:
        async with _bench(send_buffer_max_bytes=5000) as bench:
            leg = await bench.leg()
            await bench.fault("stall", duration_s=0.2)
            await bench.trade(1)
            assert (await _json(leg))["data"]["a"] <= bench.newest()
            await bench.fault("stall")
            bench.exchange.start_trading()
            await wait_until(lambda: not bench.exchange.streams.connections)
            assert bench.exchange.streams.counts["connections ended: slow reader"] == 1

    asyncio.run(scenario())


def test_a_half_open_connection_says_and_hears_nothing_and_stays_open(
    wait_until: WaitUntil,
) -> None:
    async def scenario() -> None:
        config = {
            "ping_interval_s": 0.02,
            "connection_age_max_s": 0.3,
            "control_frames_max": 5,
        }
        async with _bench(**config) as bench:
            leg = await bench.leg()
            number = (await bench.fault("half_open"))["number"]
            bench.exchange.start_trading()
            for _ in range(20):  # heard, they would be a flood
                await leg.send_json({"method": "LIST_SUBSCRIPTIONS", "id": 1})
            with contextlib.suppress(TimeoutError):
                while True:  # a ping may have been on its way
                    message = await leg.receive(timeout=0.5)
                    assert message.type is WSMsgType.PING
            assert bench.exchange.streams.connections
            # Then its age ends it.
            await bench.ask("DELETE", f"/control/stream-faults/{number}")
            await wait_until(lambda: not bench.exchange.streams.connections)

    asyncio.run(scenario())


def test_a_half_open_connection_does_not_answer_a_close(wait_until: WaitUntil) -> None:
    async def scenario() -> None:
        async with _bench() as bench:
            leg = await bench.leg()
            number = (await bench.fault("half_open", which=1))["number"]
            closing = asyncio.create_task(leg.close())
            await bench.trade(5)
            assert not closing.done()
            assert bench.exchange.streams.connections
            await bench.ask("DELETE", f"/control/stream-faults/{number}")
            await closing
            await wait_until(lambda: not bench.exchange.streams.connections)

    asyncio.run(scenario())


def test_muted_pings_stop_for_their_time_and_events_go_on() -> None:
    async def scenario() -> None:
        async with _bench(ping_interval_s=0.02) as bench:
            leg = await bench.leg()
            await bench.fault("mute_pings", duration_s=0.4)
            bench.exchange.start_trading()
            loop = asyncio.get_running_loop()
            ordered = loop.time()
            kinds = []
            while loop.time() - ordered < 0.35:
                kinds.append((await leg.receive(timeout=10)).type)
            # One may have been on its way.
            assert kinds.count(WSMsgType.PING) <= 3
            assert kinds.count(WSMsgType.TEXT) > 50
            while (await leg.receive(timeout=10)).type is not WSMsgType.PING:
                pass

    asyncio.run(scenario())


def test_handshakes_are_refused_for_a_while(wait_until: WaitUntil) -> None:
    async def scenario() -> None:
        async with _bench() as bench:
            await bench.leg()
            await bench.fault("refuse", status=429, duration_s=60)
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await bench.leg()
            assert refused.value.status == 429
            status = await bench.status()
            assert status["connections"] == 1
            assert status["standing_faults"] == [{"number": 1, "fault": "refuse", "left": None}]
            await bench.ask("DELETE", "/control/faults")
            await bench.leg()

    asyncio.run(scenario())


def test_a_void_row_is_the_same_in_stream_ledger_and_rest() -> None:
    async def scenario() -> None:
        async with _bench() as bench:
            leg = await bench.leg()
            await bench.fault("void", symbol="BTCUSDT")
            await bench.trade(5)
            events = await _waiting(leg)
            void = events[0]
            assert [void[name] for name in "pqfl"] == ["0", "0", -1, -1]
            assert [event["a"] for event in events] == list(
                range(void["a"], void["a"] + len(events))
            )
            assert all(event["f"] >= 0 for event in events[1:])
            kept = bench.exchange.ledger.rows("BTCUSDT", AGG, void["a"], 1)[0]
            assert (kept.price, kept.quantity, kept.first_trade_id) == ("0", "0", -1)
            query = f"symbol=BTCUSDT&fromId={void['a']}&limit=1"
            row = (await bench.ask("GET", f"/api/v3/aggTrades?{query}"))[0]
            assert {name: row[name] for name in "apqflTmM"} == {
                name: void[name] for name in "apqflTmM"
            }

    asyncio.run(scenario())


def test_ids_missing_from_both_legs_and_from_rest_come_back() -> None:
    async def scenario() -> None:
        async with _bench() as bench:
            leg = await bench.leg()
            await bench.trade(5)
            newest = bench.newest()
            await _waiting(leg)
            await bench.fault("skip", count=3, symbol="BTCUSDT")
            missing = {"symbol": "BTCUSDT", "first_id": newest + 1, "last_id": newest + 3}
            await bench.ask("POST", "/control/rest", {"missing": missing})
            await bench.trade(10)
            seen = await _ids(leg)
            assert seen[0] == newest + 4
            assert await bench.rest_ids(newest, limit=3) == [newest, newest + 4, newest + 5]
            assert (await bench.status())["rest"]["missing"][0]["last_id"] == newest + 3
            await bench.ask("DELETE", "/control/rest")
            assert await bench.rest_ids(newest + 1, limit=2) == [newest + 1, newest + 2]

    asyncio.run(scenario())


def test_rest_trails_by_a_delay_set_while_running() -> None:
    async def scenario() -> None:
        async with _bench() as bench:
            await bench.trade(5)
            shown = bench.newest()
            await bench.ask("POST", "/control/rest", {"delay_s": 600})
            await bench.trade(5)
            assert await bench.rest_ids(shown) == [shown]
            assert (await bench.status())["rest"]["delay_s"] == 600
            await bench.ask("DELETE", "/control/faults")
            assert (await bench.rest_ids(shown))[-1] == bench.newest() > shown

    asyncio.run(scenario())


def test_a_fault_that_can_strike_nobody_is_refused() -> None:
    async def scenario() -> None:
        async with _bench() as bench:
            orders = [
                {"fault": "skip"},
                {"fault": "stall", "which": "oldest"},
                {"fault": "silent", "symbol": "SOLUSDT"},
                {"fault": "mute_pings", "which": 7},
            ]
            for order in orders:
                answer = await bench.ask("POST", "/control/stream-faults", order, status=409)
                assert answer["msg"]
            assert (await bench.status())["standing_faults"] == []

    asyncio.run(scenario())
