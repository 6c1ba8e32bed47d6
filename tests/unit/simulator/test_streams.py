"""The exchange's WebSocket side, through a real socket on loopback."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest
from aiohttp import WSMsgType

from k2.market import StreamKind
from k2.simulator import ErrorShape, Exchange, ExchangeConfig, PongCheck

AGG, FILL = StreamKind.AGG_TRADE, StreamKind.TRADE
WaitUntil = Callable[..., Awaitable[None]]
Socket = aiohttp.ClientWebSocketResponse
NO_FRAME_LIMIT = 10**6


@contextlib.asynccontextmanager
async def _connected(
    exchange: Exchange, path: str, *, autoping: bool = True
) -> AsyncIterator[Socket]:
    async with (
        asyncio.timeout(30),
        aiohttp.ClientSession() as session,
        session.ws_connect(exchange.ws_url + path, autoping=autoping) as connection,
    ):
        yield connection


async def _json(connection: Socket) -> Any:
    message = await connection.receive()
    assert message.type is WSMsgType.TEXT, message
    return json.loads(message.data)


async def _reply(connection: Socket, request: dict[str, Any]) -> Any:
    await connection.send_json(request)
    while True:
        received = await _json(connection)
        if "id" in received and "stream" not in received and "e" not in received:
            return received


def _config(**changes: Any) -> ExchangeConfig:
    defaults: dict[str, Any] = {"symbols": ("BTCUSDT",), "rate": 500.0, "tick_s": 0.005}
    return ExchangeConfig(**(defaults | changes))


@pytest.mark.parametrize(
    ("path", "wrapped"),
    [
        ("/ws/btcusdt@aggTrade", False),
        ("/ws/ethusdt@aggTrade/btcusdt@aggTrade", False),
        ("/ws/btcusdt%40aggTrade", False),
        ("/stream?streams=btcusdt@aggTrade", True),
        ("/stream?streams=ethusdt%40trade%2Fbtcusdt%40aggTrade", True),
    ],
)
def test_every_way_to_name_a_stream_delivers_it(path: str, wrapped: bool) -> None:
    async def scenario() -> None:
        async with Exchange(_config()) as exchange, _connected(exchange, path) as connection:
            received = await _json(connection)
            assert ("stream" in received) == wrapped
            event = received["data"] if wrapped else received
            assert (event["e"], event["s"]) == ("aggTrade", "BTCUSDT")
            assert len(str(event["T"])) == len(str(event["E"])) == 13

    asyncio.run(scenario())


@pytest.mark.parametrize("unit", ["MICROSECOND", "microsecond"])
@pytest.mark.parametrize("path", ["/ws/btcusdt@trade?", "/stream?streams=btcusdt@trade&"])
def test_microseconds_are_asked_for_in_the_url(path: str, unit: str) -> None:
    async def scenario() -> None:
        async with (
            Exchange(_config()) as exchange,
            _connected(exchange, f"{path}timeUnit={unit}") as connection,
        ):
            received = await _json(connection)
            event = received.get("data", received)
            assert len(str(event["T"])) == len(str(event["E"])) == 16
            assert event["E"] >= event["T"]

    asyncio.run(scenario())


def test_a_non_ascii_symbol_is_served_by_its_encoded_name() -> None:
    async def scenario() -> None:
        name = "这是测试币456"
        async with (
            Exchange(_config(symbols=(name,))) as exchange,
            _connected(exchange, f"/stream?streams={quote(name)}@aggTrade") as connection,
        ):
            received = await _json(connection)
            assert received["stream"] == f"{name}@aggTrade"
            assert received["data"]["s"] == name

    asyncio.run(scenario())


def test_what_is_streamed_is_what_the_ledger_holds() -> None:
    async def scenario() -> None:
        path = "/ws/btcusdt@aggTrade/btcusdt@trade?timeUnit=MICROSECOND"
        async with (
            Exchange(_config(rate=3000)) as exchange,
            _connected(exchange, path) as connection,
        ):
            events = [await _json(connection) for _ in range(1000)]
            exchange.stop_trading()
            last = exchange.newest()["BTCUSDT"]
            aggregates = [event for event in events if event["e"] == "aggTrade"]
            fills = [event for event in events if event["e"] == "trade"]
            while aggregates[-1]["a"] < last["aggTrade"] or fills[-1]["t"] < last["trade"]:
                event = await _json(connection)
                (aggregates if event["e"] == "aggTrade" else fills).append(event)
            kept = exchange.ledger.rows("BTCUSDT", AGG, aggregates[0]["a"], 10**6)
            assert [
                (e["a"], e["p"], e["q"], e["f"], e["l"], e["T"], e["E"], e["m"]) for e in aggregates
            ] == [
                (
                    row.row_id,
                    row.price,
                    row.quantity,
                    row.first_trade_id,
                    row.last_trade_id,
                    row.trade_ts_us,
                    row.event_ts_us,
                    row.buyer_is_maker,
                )
                for row in kept
            ]
            kept = exchange.ledger.rows("BTCUSDT", FILL, fills[0]["t"], 10**6)
            assert [(e["t"], e["p"], e["q"], e["T"], e["m"]) for e in fills] == [
                (row.row_id, row.price, row.quantity, row.trade_ts_us, row.buyer_is_maker)
                for row in kept
            ]

    asyncio.run(scenario())


def test_trading_goes_on_while_nobody_listens_and_nothing_is_replayed(
    wait_until: WaitUntil,
) -> None:
    async def scenario() -> None:
        async with Exchange(_config()) as exchange:
            async with _connected(exchange, "/ws/btcusdt@aggTrade") as connection:
                left = (await _json(connection))["a"]
            await wait_until(lambda: exchange.newest()["BTCUSDT"]["aggTrade"] > left + 50)
            newest = exchange.newest()["BTCUSDT"]["aggTrade"]
            async with _connected(exchange, "/ws/btcusdt@aggTrade") as connection:
                assert (await _json(connection))["a"] > newest

    asyncio.run(scenario())


def test_subscriptions_and_the_wrapper_change_on_a_live_connection() -> None:
    async def scenario() -> None:
        async with Exchange(_config()) as exchange, _connected(exchange, "/ws") as connection:
            names = ["btcusdt@aggTrade", "BTCUSDT@trade", "nosuch@trade"]
            asked = {"method": "SUBSCRIBE", "params": names, "id": 1}
            assert await _reply(connection, asked) == {"result": None, "id": 1}
            listed = await _reply(connection, {"method": "LIST_SUBSCRIPTIONS", "id": 2})
            assert listed == {"result": names, "id": 2}
            assert (await _json(connection))["e"] == "aggTrade"
            change = {"method": "SET_PROPERTY", "params": ["combined", True], "id": 3}
            assert await _reply(connection, change) == {"result": None, "id": 3}
            # Uppercase and unknown names were accepted, and stay silent.
            for _ in range(50):
                assert (await _json(connection))["stream"] == "btcusdt@aggTrade"
            exchange.stop_trading()
            asked = {"method": "UNSUBSCRIBE", "params": ["btcusdt@aggTrade"], "id": "x"}
            assert await _reply(connection, asked) == {"result": None, "id": "x"}

    asyncio.run(scenario())


def test_after_unsubscribing_a_stream_is_silent(wait_until: WaitUntil) -> None:
    async def scenario() -> None:
        async with (
            Exchange(_config()) as exchange,
            _connected(exchange, "/stream?streams=btcusdt@aggTrade/btcusdt@trade") as connection,
        ):
            await _json(connection)
            asked = {"method": "UNSUBSCRIBE", "params": ["btcusdt@trade"], "id": 1}
            await _reply(connection, asked)
            for _ in range(50):
                assert (await _json(connection))["stream"] == "btcusdt@aggTrade"

    asyncio.run(scenario())


@pytest.mark.parametrize("shape", list(ErrorShape))
def test_errors_keep_the_connection_open_in_either_shape(shape: ErrorShape) -> None:
    async def scenario() -> None:
        config = _config(error_shape=shape, rate=0)
        async with Exchange(config) as exchange, _connected(exchange, "/ws") as connection:
            await connection.send_str("not json")
            error = await _json(connection)
            assert error.get("error", error)["code"] == 3
            assert ("error" in error) == (shape is ErrorShape.NESTED)
            listed = await _reply(connection, {"method": "LIST_SUBSCRIPTIONS", "id": 1})
            assert listed == {"result": [], "id": 1}

    asyncio.run(scenario())


@pytest.mark.parametrize("kind", ["ping", "pong", "text"])
def test_the_sixth_frame_in_a_second_closes_with_1008(kind: str) -> None:
    async def send(connection: Socket) -> None:
        if kind == "ping":
            await connection.ping(b"x")
        elif kind == "pong":
            await connection.pong(b"")
        else:
            await connection.send_json({"method": "LIST_SUBSCRIPTIONS", "id": 1})

    async def scenario() -> None:
        config = _config(rate=0, control_frames_window_s=60)
        async with (
            Exchange(config) as exchange,
            _connected(exchange, "/ws", autoping=False) as connection,
        ):
            for _ in range(5):
                await send(connection)
            if kind != "pong":
                for _ in range(5):
                    answered = await connection.receive()
                    assert answered.type is (WSMsgType.PONG if kind == "ping" else WSMsgType.TEXT)
            await send(connection)
            closed = await connection.receive()
            assert closed.type is WSMsgType.CLOSE
            assert (closed.data, closed.extra) == (1008, "Too many requests")

    asyncio.run(scenario())


def test_an_address_that_floods_can_be_banned() -> None:
    async def scenario() -> None:
        config = _config(rate=0, control_frames_max=0, flood_ban_s=60)
        async with Exchange(config) as exchange:
            async with _connected(exchange, "/ws") as connection:
                await connection.ping()
                assert (await connection.receive()).data == 1008
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                async with _connected(exchange, "/ws"):
                    pass
            assert refused.value.status == 429

    asyncio.run(scenario())


def test_answering_each_ping_with_its_payload_keeps_a_connection_alive() -> None:
    async def scenario() -> None:
        config = _config(
            rate=0, ping_interval_s=0.02, ping_timeout_s=0.1, control_frames_max=NO_FRAME_LIMIT
        )
        async with (
            Exchange(config) as exchange,
            _connected(exchange, "/ws", autoping=False) as connection,
        ):
            payloads = []
            for _ in range(20):  # four deadlines
                ping = await connection.receive()
                assert ping.type is WSMsgType.PING
                payloads.append(bytes(ping.data))
                await connection.pong(ping.data)
            assert all(payload.isdigit() and len(payload) == 13 for payload in payloads)
            assert payloads == sorted(set(payloads))

    asyncio.run(scenario())


@pytest.mark.parametrize("answer", ["nothing", "empty", "wrong"])
def test_anything_but_the_payload_is_no_pong(answer: str) -> None:
    async def scenario() -> None:
        config = _config(
            rate=0, ping_interval_s=0.02, ping_timeout_s=0.1, control_frames_max=NO_FRAME_LIMIT
        )
        async with (
            Exchange(config) as exchange,
            _connected(exchange, "/ws", autoping=False) as connection,
        ):
            while (message := await connection.receive()).type is WSMsgType.PING:
                if answer != "nothing":
                    await connection.pong(b"" if answer == "empty" else b"1770000000000")
            assert message.type is WSMsgType.CLOSE
            assert (message.data, message.extra) == (1008, "Pong timeout")
            assert exchange.streams.counts["connections ended: pong timeout"] <= 1

    asyncio.run(scenario())


def test_a_lenient_exchange_takes_any_pong() -> None:
    async def scenario() -> None:
        config = _config(
            rate=0,
            ping_interval_s=0.02,
            ping_timeout_s=0.1,
            control_frames_max=NO_FRAME_LIMIT,
            pong_check=PongCheck.LENIENT,
        )
        async with (
            Exchange(config) as exchange,
            _connected(exchange, "/ws", autoping=False) as connection,
        ):
            for _ in range(20):
                assert (await connection.receive()).type is WSMsgType.PING
                await connection.pong(b"")

    asyncio.run(scenario())


def test_a_client_ping_is_answered_with_its_payload() -> None:
    async def scenario() -> None:
        async with (
            Exchange(_config(rate=0)) as exchange,
            _connected(exchange, "/ws", autoping=False) as connection,
        ):
            await connection.ping(b"hello")
            pong = await connection.receive()
            assert (pong.type, bytes(pong.data)) == (WSMsgType.PONG, b"hello")

    asyncio.run(scenario())


def test_too_many_connection_attempts_are_refused_with_429() -> None:
    async def scenario() -> None:
        async with Exchange(_config(attempts_max=3)) as exchange:
            for _ in range(3):
                async with _connected(exchange, "/ws"):
                    pass
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                async with _connected(exchange, "/ws"):
                    pass
            assert refused.value.status == 429

    asyncio.run(scenario())


def test_a_connection_ends_at_its_age_limit() -> None:
    async def scenario() -> None:
        config = _config(connection_age_max_s=0.1, rate=0)
        async with Exchange(config) as exchange, _connected(exchange, "/ws") as connection:
            assert (await connection.receive()).type is WSMsgType.CLOSE

    asyncio.run(scenario())


def test_random_drops_come_with_and_without_a_close_frame(wait_until: WaitUntil) -> None:
    async def scenario() -> None:
        # At this rate each connection lives a few ticks.
        config = _config(drops_per_hour=3600 * 40, attempts_max=10**6)
        ends = set()
        async with Exchange(config) as exchange:
            for _ in range(200):
                async with _connected(exchange, "/ws") as connection:
                    ends.add((await connection.receive()).type)
                if {WSMsgType.CLOSE, WSMsgType.CLOSED} <= ends:
                    break
        assert {WSMsgType.CLOSE, WSMsgType.CLOSED} <= ends

    asyncio.run(scenario())


def test_a_slow_reader_is_cut_and_delays_nobody(wait_until: WaitUntil) -> None:
    async def scenario() -> None:
        config = _config(rate=20_000, send_buffer_max_bytes=100_000, tick_s=0.02)
        async with Exchange(config) as exchange:
            sleeper = socket.socket()
            sleeper.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            with sleeper:
                sleeper.connect(("127.0.0.1", exchange.port))
                sleeper.sendall(
                    b"GET /stream?streams=btcusdt@aggTrade/btcusdt@trade HTTP/1.1\r\nHost: x\r\n"
                    b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
                )
                async with _connected(exchange, "/ws/btcusdt@aggTrade") as reader:
                    last = (await _json(reader))["a"]
                    counts = exchange.streams.counts
                    while not counts["connections ended: slow reader"]:
                        event = await _json(reader)
                        assert event["a"] == last + 1
                        last = event["a"]

    asyncio.run(scenario())


def test_leaving_the_exchange_closes_its_connections_in_time() -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        async with aiohttp.ClientSession() as session:
            async with Exchange(_config()) as exchange:
                polite = await session.ws_connect(f"{exchange.ws_url}/ws")
                deaf = socket.create_connection(("127.0.0.1", exchange.port))
                started = loop.time()
            assert loop.time() - started < 1.0
            closed = await polite.receive()
            assert (closed.type, closed.data) == (WSMsgType.CLOSE, 1001)
            deaf.close()

    asyncio.run(scenario())
