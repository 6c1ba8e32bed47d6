"""The exchange's REST side and its control endpoints, through a real socket on loopback."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from k2.market import StreamKind
from k2.simulator import Exchange, ExchangeConfig
from k2.simulator.frames import rest_row

AGG, FILL = StreamKind.AGG_TRADE, StreamKind.TRADE
WaitUntil = Callable[..., Awaitable[None]]
US = {"X-MBX-TIME-UNIT": "MICROSECOND"}


class Client:
    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session
        self.headers: Mapping[str, str] = {}

    async def get(
        self, path: str, *, status: int = 200, headers: dict[str, str] | None = None, **query: Any
    ) -> Any:
        params = {name: str(value) for name, value in query.items()}
        async with self._session.get(path, params=params, headers=headers) as response:
            text = await response.text()
            assert response.status == status, text
            self.headers = dict(response.headers)
            return json.loads(text) if response.content_type == "application/json" else text

    async def post(self, path: str, body: object, *, status: int = 200) -> Any:
        async with self._session.post(path, json=body) as response:
            assert response.status == status, await response.text()
            return await response.json()


@contextlib.asynccontextmanager
async def _client(exchange: Exchange) -> AsyncIterator[Client]:
    async with asyncio.timeout(30), aiohttp.ClientSession(exchange.rest_url) as session:
        yield Client(session)


def _config(**changes: Any) -> ExchangeConfig:
    defaults: dict[str, Any] = {
        "symbols": ("BTCUSDT", "FTTUSDT"),
        "rate": 20_000.0,
        "tick_s": 0.005,
        "weight_max": 10**6,
    }
    return ExchangeConfig(**(defaults | changes))


@contextlib.asynccontextmanager
async def _frozen(wait_until: WaitUntil, **changes: Any) -> AsyncIterator[tuple[Exchange, Client]]:
    """An exchange with at least 2,500 aggregates, and no more to come."""
    async with Exchange(_config(**changes)) as exchange, _client(exchange) as client:
        await wait_until(lambda: exchange.ledger.count("BTCUSDT", AGG) >= 2500)
        exchange.stop_trading()
        yield exchange, client


AGG_PATH = "/api/v3/aggTrades"


def test_the_rules_of_agg_trades(wait_until: WaitUntil) -> None:
    async def scenario() -> None:
        async with _frozen(wait_until) as (exchange, client):
            every = [
                rest_row(row, microseconds=True)
                for row in exchange.ledger.rows("BTCUSDT", AGG, 0, 10**6)
            ]
            first_id = int(str(every[0]["a"]))

            async def ask(**query: Any) -> Any:
                return await client.get(AGG_PATH, headers=US, symbol="BTCUSDT", **query)

            assert await ask() == every[-500:]
            assert await ask(limit=3) == every[-3:]
            assert await ask(limit=5000) == every[-1000:]
            assert await ask(fromId=first_id + 7, limit=2) == every[7:9]
            assert await ask(fromId=0) == every[:500]
            assert await ask(fromId=first_id, limit=1001) == every[:1000]
            assert await ask(fromId=first_id + len(every) - 1) == every[-1:]
            assert await ask(fromId=first_id + len(every)) == []
            start, end = int(str(every[100]["T"])), int(str(every[300]["T"]))
            between = [row for row in every if start <= int(str(row["T"])) <= end]
            assert await ask(startTime=start, endTime=end) == between[:500]
            assert await ask(startTime=start, limit=10) == between[:10]
            until = [row for row in every if int(str(row["T"])) <= end]
            assert await ask(endTime=end, limit=20) == until[-20:]
            at = [row for row in every if row["T"] == start]
            assert at
            assert await ask(startTime=start, endTime=start) == at
            assert await ask(startTime=end, endTime=start) == []
            in_ms = [
                {**row, "T": int(str(row["T"])) // 1000}
                for row in every
                if int(str(row["T"])) // 1000 == start // 1000
            ]
            one_ms: dict[str, Any] = {"startTime": start // 1000, "endTime": start // 1000}
            assert await client.get(AGG_PATH, symbol="BTCUSDT", **one_ms) == in_ms
            assert await client.get(AGG_PATH, symbol="FTTUSDT") == []

    asyncio.run(scenario())


def test_fills_and_aggregates_are_served_from_one_tape(wait_until: WaitUntil) -> None:
    async def scenario() -> None:
        async with _frozen(wait_until) as (exchange, client):
            path = "/api/v3/historicalTrades"
            ids = exchange.ledger.range("BTCUSDT", FILL)
            assert ids is not None
            aggregates = await client.get(AGG_PATH, symbol="BTCUSDT", fromId=0, limit=300)
            fills: list[Any] = []
            while len(fills) < 1500:
                from_id = ids.first_id + len(fills)
                fills += await client.get(path, symbol="BTCUSDT", fromId=from_id, limit=1000)
            assert all(after["id"] == before["id"] + 1 for before, after in pairwise(fills))
            prices = {fill["id"]: (fill["price"], fill["time"]) for fill in fills}
            for row in aggregates:
                if row["l"] <= fills[-1]["id"]:
                    merged = {prices[n] for n in range(row["f"], row["l"] + 1)}
                    assert merged == {(row["p"], row["T"])}
            newest = await client.get("/api/v3/trades", symbol="BTCUSDT", limit=5)
            assert newest == await client.get(path, symbol="BTCUSDT", limit=5)
            assert newest[-1]["id"] == ids.first_id + exchange.ledger.count("BTCUSDT", FILL) - 1

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ({}, -1102),
        ({"symbol": "NOPEUSDT"}, -1121),
        ({"symbol": "btcusdt"}, -1100),
        ({"symbol": "BTCUSDT", "fromId": 1, "startTime": 1}, -1128),
        ({"symbol": "BTCUSDT", "limit": 0}, -1130),
    ],
)
def test_a_bad_request_is_a_400_with_code_and_weight(query: dict[str, Any], code: int) -> None:
    async def scenario() -> None:
        async with Exchange(_config(rate=0)) as exchange, _client(exchange) as client:
            error = await client.get(AGG_PATH, status=400, **query)
            assert error.keys() == {"code", "msg"}
            assert error["code"] == code
            assert client.headers["X-MBX-USED-WEIGHT-1M"] == "4"

    asyncio.run(scenario())


def test_each_endpoint_has_its_weight() -> None:
    async def scenario() -> None:
        # Counted per minute; in the test the minute does not end.
        config = _config(rate=0, weight_window_s=1e9)
        async with Exchange(config) as exchange, _client(exchange) as client:
            used = 0
            for path, weight in (
                ("ping", 1),
                ("time", 1),
                ("exchangeInfo", 20),
                ("aggTrades?symbol=BTCUSDT", 4),
                ("historicalTrades?symbol=BTCUSDT", 25),
                ("trades?symbol=BTCUSDT", 25),
            ):
                await client.get(f"/api/v3/{path}")
                used += weight
                assert client.headers["X-MBX-USED-WEIGHT-1M"] == str(used)

    asyncio.run(scenario())


def test_ping_time_and_exchange_info() -> None:
    async def scenario() -> None:
        async with Exchange(ExchangeConfig(rate=0)) as exchange, _client(exchange) as client:
            assert await client.get("/api/v3/ping") == {}
            assert len(str((await client.get("/api/v3/time"))["serverTime"])) == 13
            in_us = await client.get("/api/v3/time", headers=US)
            assert len(str(in_us["serverTime"])) == 16
            path = "/api/v3/exchangeInfo"
            full = await client.get(path)
            assert {"timezone", "serverTime", "rateLimits", "symbols"} <= full.keys()
            assert len(full["symbols"]) == len(exchange.listings)
            one = (await client.get(path, symbol="这是测试币456"))["symbols"]
            assert [(s["baseAsset"], s["quoteAsset"]) for s in one] == [("这是测试币", "456")]
            two = await client.get(path, symbols='["BTCUSDT","ETHBTC"]')
            assert [s["symbol"] for s in two["symbols"]] == ["BTCUSDT", "ETHBTC"]
            assert full["rateLimits"][0]["limit"] == 6000

    asyncio.run(scenario())


def test_over_the_weight_is_429_then_418_and_bans_grow() -> None:
    async def scenario() -> None:
        config = _config(
            rate=0, weight_max=8, weight_window_s=1e9, refusals_before_ban=2, ban_first_s=100.0
        )
        async with Exchange(config) as exchange, _client(exchange) as client:
            for _ in range(2):
                await client.get(AGG_PATH, symbol="BTCUSDT")
            for _ in range(2):
                error = await client.get(AGG_PATH, status=429, symbol="BTCUSDT")
                assert error["code"] == -1003
                assert 0 < int(client.headers["Retry-After"]) <= 1e9
            for _ in range(3):
                error = await client.get("/api/v3/ping", status=418)
                assert "IP banned until" in error["msg"]
                assert 95 <= int(client.headers["Retry-After"]) <= 100

    asyncio.run(scenario())


def test_rest_trails_the_stream_by_the_database_lag(wait_until: WaitUntil) -> None:
    async def scenario() -> None:
        async with _frozen(wait_until, rest_delay_s=1.5) as (exchange, client):
            newest = exchange.newest()["BTCUSDT"]["aggTrade"]
            rows = await client.get(AGG_PATH, symbol="BTCUSDT", limit=1000)
            assert not rows or rows[-1]["a"] < newest
            assert await client.get(AGG_PATH, symbol="BTCUSDT", fromId=newest) == []
            async with asyncio.timeout(10):
                while not await client.get(AGG_PATH, symbol="BTCUSDT", fromId=newest):
                    pass

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("status", "code"), [(403, None), (451, 0), (500, -1000), (503, -1008), (429, -1003)]
)
def test_failures_on_demand(status: int, code: int | None) -> None:
    async def scenario() -> None:
        async with Exchange(_config(rate=0)) as exchange, _client(exchange) as client:
            fault = {"status": status, "count": 2, "path": "aggTrades"}
            await client.post("/control/faults", fault)
            await client.get("/api/v3/ping")
            for _ in range(2):
                body = await client.get(AGG_PATH, status=status, symbol="BTCUSDT")
                if code is None:
                    assert "<html>" in body
                else:
                    assert body["code"] == code
            assert await client.get(AGG_PATH, symbol="BTCUSDT") == []

    asyncio.run(scenario())


def test_a_slow_reply_delays_only_itself() -> None:
    async def scenario() -> None:
        async with Exchange(_config(rate=0)) as exchange, _client(exchange) as client:
            await client.post("/control/faults", {"delay_s": 0.3, "path": "aggTrades"})
            loop = asyncio.get_running_loop()
            started = loop.time()
            slow = asyncio.create_task(client.get(AGG_PATH, symbol="BTCUSDT"))
            await client.get("/api/v3/ping")
            assert not slow.done()
            assert await slow == []
            assert loop.time() - started >= 0.3

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/control/faults", {"status": 302}),
        ("/control/faults", {"stat": 500}),
        ("/control/trading", {"on": "maybe"}),
        ("/control/connections", {"drop": "softly"}),
    ],
)
def test_a_wrong_order_to_the_control_endpoints_is_refused(path: str, body: object) -> None:
    async def scenario() -> None:
        async with Exchange(_config(rate=0)) as exchange, _client(exchange) as client:
            assert (await client.post(path, body, status=400))["msg"]

    asyncio.run(scenario())


def test_trading_is_frozen_and_thawed_from_outside(wait_until: WaitUntil) -> None:
    async def scenario() -> None:
        async with Exchange(_config()) as exchange, _client(exchange) as client:
            await wait_until(lambda: bool(exchange.newest()))
            frozen = await client.post("/control/trading", {"on": False})
            assert frozen["trading"] is False
            for _ in range(20):
                assert await client.get("/control/newest") == frozen
            await client.post("/control/trading", {"on": True})
            await wait_until(lambda: exchange.newest() != frozen["newest"])

    asyncio.run(scenario())


@pytest.mark.parametrize("how", ["close", "abort"])
def test_connections_are_dropped_on_demand(how: str, wait_until: WaitUntil) -> None:
    async def scenario() -> None:
        async with (
            Exchange(_config()) as exchange,
            _client(exchange) as client,
            aiohttp.ClientSession() as session,
            session.ws_connect(f"{exchange.ws_url}/ws") as connection,
        ):
            await wait_until(lambda: len(exchange.streams.connections) == 1)
            answer = await client.post("/control/connections", {"drop": how})
            assert answer == {"dropped": 1, "connections": [1]}
            ended = await connection.receive()
            expected = aiohttp.WSMsgType.CLOSE if how == "close" else aiohttp.WSMsgType.CLOSED
            assert ended.type is expected
            status = await client.get("/control/status")
            assert status["counts"]["connections opened"] == 1

    asyncio.run(scenario())


def test_the_real_recording_is_served_by_rest_as_it_was_streamed(
    tmp_path: Path, real_recording: Path
) -> None:
    async def page(client: Client, path: str, key: str, newest: int) -> list[Any]:
        rows: list[Any] = []
        from_id = 0
        while from_id <= newest:
            rows += await client.get(path, headers=US, symbol="BTCUSDT", fromId=from_id, limit=1000)
            from_id = rows[-1][key] + 1
        return rows

    async def scenario() -> None:
        config = ExchangeConfig(tape=real_recording, speed=float("inf"), data_dir=tmp_path)
        url = "/ws/btcusdt@trade/btcusdt@aggTrade?timeUnit=MICROSECOND"
        async with (
            Exchange(config) as exchange,
            _client(exchange) as client,
            aiohttp.ClientSession() as session,
        ):
            assert await client.get(AGG_PATH, symbol="BTCUSDT") == []
            events: list[Any] = []
            async with session.ws_connect(exchange.ws_url + url) as connection:
                while len(events) < 9757 + 5813:
                    events.append(json.loads((await connection.receive()).data))
            await exchange.wait_tape_finished()
            fills = [event for event in events if event["e"] == "trade"]
            aggregates = [event for event in events if event["e"] == "aggTrade"]
            assert (len(fills), len(aggregates)) == (9757, 5813)
            assert all(after["t"] == before["t"] + 1 for before, after in pairwise(fills))
            assert all("a" not in fill and "b" not in fill for fill in fills)
            assert all(fill["T"] % 1000 == 0 and fill["E"] > 10**15 for fill in fills)
            rows = await page(client, "/api/v3/historicalTrades", "id", fills[-1]["t"])
            assert [
                (r["id"], r["price"], r["qty"], r["time"], r["isBuyerMaker"], r["isBestMatch"])
                for r in rows
            ] == [(f["t"], f["p"], f["q"], f["T"], f["m"], f["M"]) for f in fills]
            rows = await page(client, AGG_PATH, "a", aggregates[-1]["a"])
            assert rows == [{key: a[key] for key in "apqflTmM"} for a in aggregates]
            in_ms = await client.get(AGG_PATH, symbol="BTCUSDT", fromId=0, limit=1)
            assert in_ms[0]["T"] * 1000 == aggregates[0]["T"]

    asyncio.run(scenario())
