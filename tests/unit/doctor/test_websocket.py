"""A stream opened, pinged, subscribed to and heard, on the exchange in a box and odder servers."""

import json
import ssl
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from k2.doctor.finding import Finding, Level, Unseen
from k2.doctor.reach_judgement import Place
from k2.doctor.websocket_judgement import StreamSeen, judge_stream
from k2.doctor.websocket_look import look_at_stream
from k2.market import StreamKind
from k2.simulator import Exchange, ExchangeConfig
from unit.doctor.servers import Authority, answering, in_background

PLACE = Place("h", 1, "BINANCE_WS_URL")


@pytest.fixture
def exchange() -> Iterator[Exchange]:
    with in_background(Exchange(ExchangeConfig(symbols=("BTCUSDT",), rate=100))) as running:
        yield running


def _look(url: str, *, symbol: str = "BTCUSDT", wait_s: float = 10.0) -> dict[str, Finding]:
    """Return the findings by the last word of what was looked at."""
    seen = look_at_stream(url, symbols=[symbol], kind=StreamKind.AGG_TRADE, wait_s=wait_s)
    return {one.check.removeprefix(f"{PLACE} "): one for one in judge_stream(PLACE, seen)}


def _fault(exchange: Exchange, **order: object) -> None:
    request = urllib.request.Request(
        f"{exchange.rest_url}/control/stream-faults",
        data=json.dumps(order).encode(),
        headers={"Content-Type": "application/json"},
    )
    urllib.request.urlopen(request, timeout=10).close()


def test_a_healthy_stream_is_pinged_subscribed_and_heard(exchange: Exchange) -> None:
    found = _look(exchange.ws_url + "/ws")
    assert {name: one.level for name, one in found.items()} == dict.fromkeys(
        ("WebSocket", "PING", "subscription", "first trade"), Level.OK
    )
    assert "PONG after" in found["PING"].seen
    assert "btcusdt@aggTrade: acknowledged" in found["subscription"].seen


def test_the_combined_form_of_the_address_is_heard_too(exchange: Exchange) -> None:
    assert _look(exchange.ws_url + "/stream")["first trade"].level is Level.OK


def test_what_is_refused_at_the_handshake_says_so(exchange: Exchange) -> None:
    _fault(exchange, fault="refuse", duration_s=60, status=429)
    (found,) = _look(exchange.ws_url + "/ws").values()
    assert found.level is Level.FAIL
    assert "429" in found.seen


def test_a_half_open_connection_has_neither_pong_nor_acknowledgement(exchange: Exchange) -> None:
    _fault(exchange, fault="half_open", duration_s=60)
    found = _look(exchange.ws_url + "/ws", wait_s=0.5)
    assert found["WebSocket"].level is Level.OK
    assert found["PING"].level is Level.FAIL
    assert "no PONG within 500 ms" in found["PING"].seen
    assert found["subscription"].level is Level.FAIL


def test_silence_after_the_acknowledgement_is_a_warning(exchange: Exchange) -> None:
    _fault(exchange, fault="silent", duration_s=60)
    found = _look(exchange.ws_url + "/ws", wait_s=0.5)
    assert found["subscription"].level is Level.OK
    assert found["first trade"].level is Level.WARN
    assert "none of btcusdt@aggTrade within 500 ms" in found["first trade"].seen


def test_a_symbol_nobody_lists_is_acknowledged_and_never_heard(exchange: Exchange) -> None:
    found = _look(exchange.ws_url + "/ws", symbol="NOSUCHUSDT", wait_s=0.5)
    assert found["subscription"].level is Level.OK
    assert found["first trade"].level is Level.WARN
    assert "BINANCE_SYMBOLS" in found["first trade"].fix


async def _first_word(request: web.Request) -> tuple[web.WebSocketResponse, str]:
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    return socket, await socket.receive_str()


async def _refuses(request: web.Request) -> web.WebSocketResponse:
    socket, _ = await _first_word(request)
    await socket.send_str('{"code":2,"msg":"Invalid request","id":1}')
    await socket.receive()
    return socket


async def _hangs_up(request: web.Request) -> web.WebSocketResponse:
    socket, _ = await _first_word(request)
    await socket.close(code=1008, message=b"Too many requests")
    return socket


async def _cuts(request: web.Request) -> web.WebSocketResponse:
    socket, _ = await _first_word(request)
    assert request.transport is not None
    request.transport.abort()
    return socket


async def _babbles(request: web.Request) -> web.WebSocketResponse:
    socket, _ = await _first_word(request)
    await socket.send_str('{"result":null,"id":1}')
    await socket.send_str('{"e":"somethingNew","E":1,"s":"BTCUSDT"}')
    await socket.receive()
    return socket


async def _is_no_websocket(_: web.Request) -> web.Response:
    return web.Response(text="hello")


def test_a_refused_subscription_is_told_in_the_servers_words() -> None:
    with answering("/ws", _refuses) as url:
        found = _look(url.replace("http", "ws") + "/ws")
    assert found["PING"].level is Level.OK
    assert found["subscription"].level is Level.FAIL
    assert "Invalid request (2)" in found["subscription"].seen


def test_a_server_that_hangs_up_is_told_with_its_reason() -> None:
    with answering("/ws", _hangs_up) as url:
        found = _look(url.replace("http", "ws") + "/ws")
    assert found["subscription"].level is Level.FAIL
    assert "Too many requests (1008)" in found["subscription"].seen


def test_a_server_that_cuts_the_line_is_told() -> None:
    with answering("/ws", _cuts) as url:
        found = _look(url.replace("http", "ws") + "/ws")
    assert found["subscription"].level is Level.FAIL
    assert found["subscription"].seen.endswith(": the server hung up")


def test_a_password_in_the_address_is_not_told() -> None:
    with answering("/ws", _is_no_websocket) as url:
        (found,) = _look(url.replace("http://", "ws://anna:hunter2@") + "/ws?x=y").values()
    assert found.level is Level.FAIL
    assert "hunter2" not in found.seen


def test_a_frame_that_cannot_be_read_fails() -> None:
    with answering("/ws", _babbles) as url:
        found = _look(url.replace("http", "ws") + "/ws")
    assert found["first trade"].level is Level.FAIL
    assert "cannot read" in found["first trade"].seen


def test_what_is_no_websocket_fails() -> None:
    with answering("/ws", _is_no_websocket) as url:
        (found,) = _look(url.replace("http", "ws") + "/ws").values()
    assert found.level is Level.FAIL
    assert "/ws or /stream" in found.fix


@asynccontextmanager
async def _serving(app: web.Application, context: ssl.SSLContext) -> AsyncIterator[int]:
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    assert site._server is not None
    yield int(site._server.sockets[0].getsockname()[1])  # type: ignore[attr-defined]
    await runner.cleanup()


def _app() -> web.Application:
    app = web.Application()
    app.router.add_get("/ws", _babbles)
    return app


def test_an_encrypted_stream_is_pinged_too(authority: Authority) -> None:
    with in_background(_serving(_app(), authority.context("127.0.0.1"))) as port:
        found = _look(f"wss://127.0.0.1:{port}/ws")
    assert found["PING"].level is Level.OK
    with in_background(_serving(_app(), authority.context("elsewhere.example"))) as port:
        (refused,) = _look(f"wss://127.0.0.1:{port}/ws").values()
    assert refused.level is Level.FAIL
    assert "certificate" in refused.seen.lower()


def test_a_server_that_hung_up_is_said_where_something_did_not_come() -> None:
    seen = StreamSeen(asked=("a@trade",), waited_s=10.0, opened_s=0.1, ended=True)
    found = judge_stream(PLACE, seen)
    assert [one.level for one in found] == [Level.OK, Level.FAIL, Level.FAIL]
    assert all("the server hung up" in one.seen for one in found[1:])


def test_of_many_streams_three_are_named() -> None:
    seen = StreamSeen(
        asked=tuple("abcde"), waited_s=1, opened_s=0.1, pong_s=0.1, acknowledged_s=0.1
    )
    assert "a, b, c ..." in judge_stream(PLACE, seen)[2].seen


def test_a_stream_that_was_not_opened_is_one_failure() -> None:
    (found,) = judge_stream(PLACE, Unseen("403 Forbidden"))
    assert (found.level, found.seen) == (Level.FAIL, "403 Forbidden")
