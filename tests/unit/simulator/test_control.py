"""Connections ended, listings changed and the rate set over the control endpoints."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import WSMsgType

from k2.market import StreamKind
from k2.simulator import Exchange, ExchangeConfig

AGG = StreamKind.AGG_TRADE
WaitUntil = Callable[..., Awaitable[None]]


class Bench:
    def __init__(self, exchange: Exchange, session: aiohttp.ClientSession) -> None:
        self.exchange = exchange
        self.session = session

    async def ask(self, method: str, path: str, body: object = None, *, status: int = 200) -> Any:
        url = self.exchange.rest_url + path
        async with self.session.request(method, url, json=body) as response:
            assert response.status == status, await response.text()
            return await response.json()

    async def legs(self, *paths: str) -> list[aiohttp.ClientWebSocketResponse]:
        legs = []
        for number, path in enumerate(paths, start=1):
            legs.append(await self.session.ws_connect(self.exchange.ws_url + path))
            while number not in self.exchange.streams.connections:  # noqa: ASYNC110 ends at once
                await asyncio.sleep(0)
        return legs

    async def listed(self) -> dict[str, str]:
        described = (await self.ask("GET", "/api/v3/exchangeInfo"))["symbols"]
        return {symbol["symbol"]: symbol["status"] for symbol in described}


@contextlib.asynccontextmanager
async def _bench(**changes: Any) -> AsyncIterator[Bench]:
    defaults: dict[str, Any] = {"symbols": ("BTCUSDT",), "rate": 0.0, "tick_s": 0.005}
    async with (
        asyncio.timeout(40),
        Exchange(ExchangeConfig(**(defaults | changes))) as exchange,
        aiohttp.ClientSession() as session,
    ):
        yield Bench(exchange, session)


def test_the_status_tells_connections_apart() -> None:
    async def scenario() -> None:
        async with _bench() as bench:
            _held = await bench.legs("/stream?streams=a@trade/b@trade", "/ws/c@trade")
            found = (await bench.ask("GET", "/control/status"))["open_connections"]
            assert [(c["number"], c["path"], c["streams"]) for c in found] == [
                (1, "/stream", 2),
                (2, "/ws/c@trade", 1),
            ]
            assert found[0]["age_s"] >= found[1]["age_s"] >= 0
            assert found[0]["host"] == f"127.0.0.1:{bench.exchange.port}"

    asyncio.run(scenario())


@pytest.mark.parametrize(("which", "struck"), [("oldest", 0), ("newest", 1), (2, 1)])
def test_one_connection_is_closed_with_a_chosen_code_and_the_other_lives(
    which: str | int, struck: int
) -> None:
    async def scenario() -> None:
        async with _bench() as bench:
            legs = await bench.legs("/ws", "/ws")
            order = {
                "drop": "close",
                "which": which,
                "code": 1008,
                "reason": "Too many requests",
            }
            assert await bench.ask("POST", "/control/connections", order) == {
                "dropped": 1,
                "connections": [struck + 1],
            }
            ended = await legs[struck].receive(timeout=10)
            assert (ended.type, ended.data, ended.extra) == (
                WSMsgType.CLOSE,
                1008,
                "Too many requests",
            )
            other = legs[1 - struck]
            await other.send_json({"method": "LIST_SUBSCRIPTIONS", "id": 1})
            assert json.loads((await other.receive(timeout=10)).data)["id"] == 1

    asyncio.run(scenario())


@pytest.mark.parametrize("lead_s", [0, 0.3])
def test_a_shutdown_is_announced_in_either_shape_and_closes_after_its_lead(lead_s: float) -> None:
    async def scenario() -> None:
        async with _bench() as bench:
            raw, combined = await bench.legs("/ws", "/stream?timeUnit=MICROSECOND")
            loop = asyncio.get_running_loop()
            ordered = loop.time()
            order = {"announce_shutdown": {"lead_s": lead_s}}
            answer = await bench.ask("POST", "/control/connections", order)
            assert answer == {"announced": 2, "connections": [1, 2]}
            bare = json.loads((await raw.receive(timeout=10)).data)
            assert bare.keys() == {"e", "E"}
            wrapped = json.loads((await combined.receive(timeout=10)).data)
            assert wrapped["stream"] == "!serverShutdown"
            assert wrapped["data"]["e"] == bare["e"] == "serverShutdown"
            assert (len(str(bare["E"])), len(str(wrapped["data"]["E"]))) == (13, 16)
            for leg in (raw, combined):
                ended = await leg.receive(timeout=10)
                assert (ended.type, ended.data) == (WSMsgType.CLOSE, 1001)
                assert loop.time() - ordered >= lead_s

    asyncio.run(scenario())


def test_a_shutdown_of_one_connection_leaves_the_other(wait_until: WaitUntil) -> None:
    async def scenario() -> None:
        async with _bench() as bench:
            _held = await bench.legs("/ws", "/ws")
            order = {"announce_shutdown": {"lead_s": 0.05}, "which": "newest"}
            await bench.ask("POST", "/control/connections", order)
            await wait_until(lambda: list(bench.exchange.streams.connections) == [1])
            counts = bench.exchange.streams.counts
            assert counts["connections ended: server shutdown"] == 1

    asyncio.run(scenario())


def test_a_symbol_is_listed_and_trades_and_is_delisted(wait_until: WaitUntil) -> None:
    async def scenario() -> None:
        async with _bench(rate=500.0) as bench:
            (leg,) = await bench.legs("/ws/solusdt@aggTrade")
            assert await bench.ask("POST", "/control/listings", {"add": "SOLUSDT"}) == {
                "BTCUSDT": "TRADING",
                "SOLUSDT": "TRADING",
            }
            assert await bench.listed() == {"BTCUSDT": "TRADING", "SOLUSDT": "TRADING"}
            first = json.loads((await leg.receive(timeout=10)).data)
            assert (first["s"], first["a"]) == ("SOLUSDT", 988000456)
            await bench.ask("POST", "/control/listings", {"remove": "SOLUSDT"})
            newest = bench.exchange.newest()["SOLUSDT"]
            assert await bench.listed() == {"BTCUSDT": "TRADING"}
            path = "/api/v3/aggTrades?symbol=SOLUSDT"
            assert (await bench.ask("GET", path, status=400))["code"] == -1121
            before = bench.exchange.ledger.count("BTCUSDT", AGG)
            await wait_until(lambda: bench.exchange.ledger.count("BTCUSDT", AGG) > before + 50)
            assert bench.exchange.newest()["SOLUSDT"] == newest
            # Listed again, it goes on with the next id.
            await bench.ask("POST", "/control/listings", {"add": "SOLUSDT"})
            await wait_until(lambda: bench.exchange.newest()["SOLUSDT"] != newest)
            ids = bench.exchange.ledger.range("SOLUSDT", AGG)
            assert ids is not None
            assert bench.exchange.ledger.count("SOLUSDT", AGG) == len(ids)

    asyncio.run(scenario())


def test_a_status_stops_and_starts_trading(wait_until: WaitUntil) -> None:
    async def scenario() -> None:
        async with _bench(rate=500.0, symbols=("BTCUSDT", "VENUSDT")) as bench:
            await wait_until(lambda: "BTCUSDT" in bench.exchange.newest())
            statuses = {"status": {"BTCUSDT": "HALT", "VENUSDT": "TRADING"}}
            await bench.ask("POST", "/control/listings", statuses)
            halted = bench.exchange.newest()["BTCUSDT"]
            assert await bench.listed() == statuses["status"]
            await wait_until(lambda: bench.exchange.ledger.count("VENUSDT", AGG) > 20)
            assert bench.exchange.newest()["BTCUSDT"] == halted
            await bench.ask("POST", "/control/listings", {"status": {"BTCUSDT": "TRADING"}})
            await wait_until(lambda: bench.exchange.newest()["BTCUSDT"] != halted)
            ids = bench.exchange.ledger.range("BTCUSDT", AGG)
            assert ids is not None
            assert bench.exchange.ledger.count("BTCUSDT", AGG) == len(ids)

    asyncio.run(scenario())


def test_the_rate_is_changed_for_a_burst(wait_until: WaitUntil) -> None:
    async def scenario() -> None:
        async with _bench() as bench:
            assert (await bench.ask("POST", "/control/trading", {"rate": 20_000}))["trading"]
            await wait_until(lambda: bench.exchange.ledger.count("BTCUSDT", AGG) > 1000)
            await bench.ask("POST", "/control/trading", {"rate": 0, "on": False})
            assert not bench.exchange.trading

    asyncio.run(scenario())


def test_after_a_void_row_a_restart_goes_on_from_the_listed_price(
    tmp_path: Path, wait_until: WaitUntil
) -> None:
    async def life(*, void: bool) -> None:
        async with _bench(rate=500.0, data_dir=tmp_path) as bench:
            before = bench.exchange.ledger.count("BTCUSDT", AGG)
            if void:
                fault = {"fault": "void", "count": 10**6}
                await bench.ask("POST", "/control/stream-faults", fault)
            await wait_until(lambda: bench.exchange.ledger.count("BTCUSDT", AGG) > before + 5)
            ids = bench.exchange.ledger.range("BTCUSDT", AGG)
            assert ids is not None
            last = bench.exchange.ledger.rows("BTCUSDT", AGG, ids.last_id)[0]
            assert void == (last.price == "0")
            assert void or float(last.price) > 90_000

    asyncio.run(life(void=True))
    asyncio.run(life(void=False))


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/control/connections", {}, 400),
        ("/control/connections", {"drop": "close", "announce_shutdown": {"lead_s": 1}}, 400),
        ("/control/connections", {"announce_shutdown": {"lead_s": 601}}, 400),
        ("/control/connections", {"drop": "abort", "code": 1008}, 400),
        ("/control/connections", {"drop": "close", "which": "some"}, 400),
        ("/control/connections", {"drop": "close", "which": 99}, 409),
        ("/control/connections", {"drop": "close", "which": "oldest"}, 409),
        ("/control/rest", {}, 400),
        ("/control/rest", {"delay_s": -1}, 400),
        ("/control/rest", {"missing": {"symbol": "NOPE", "first_id": 1, "last_id": 2}}, 409),
        ("/control/rest", {"missing": {"symbol": "BTCUSDT", "first_id": 2, "last_id": 1}}, 400),
        ("/control/listings", {}, 400),
        ("/control/listings", {"add": "SOLUSDT", "remove": "NOPE"}, 400),
        ("/control/listings", {"add": "BTCUSDT"}, 409),
        ("/control/listings", {"add": "NOPE"}, 409),
        ("/control/listings", {"remove": "NOPE"}, 409),
        ("/control/listings", {"status": {"BTCUSDT": "ASLEEP"}}, 400),
        ("/control/listings", {"status": {"BTCUSDT": "BREAK", "NOPE": "BREAK"}}, 409),
        ("/control/trading", {}, 400),
        ("/control/trading", {"rate": -1}, 400),
        ("/control/faults", {"status": 429, "retry_after_s": -1}, 400),
        ("/control/stream-faults", {"fault": "skip", "symbols": "BTCUSDT"}, 400),
    ],
)
def test_a_wrong_request_is_refused_and_changes_nothing(
    path: str, body: object, status: int
) -> None:
    async def scenario() -> None:
        async with _bench() as bench:
            before = await bench.ask("GET", "/control/status")
            assert (await bench.ask("POST", path, body, status=status))["msg"]
            assert await bench.ask("GET", "/control/status") == before

    asyncio.run(scenario())


def test_retry_after_is_what_was_ordered() -> None:
    async def scenario() -> None:
        async with _bench() as bench:
            for order, expected in (
                ({"status": 418, "retry_after_s": 30}, "30"),
                ({"status": 429}, "1"),
            ):
                await bench.ask("POST", "/control/faults", order)
                url = f"{bench.exchange.rest_url}/api/v3/time"
                async with bench.session.get(url) as response:
                    assert response.status == order["status"]
                    assert response.headers["Retry-After"] == expected

    asyncio.run(scenario())
