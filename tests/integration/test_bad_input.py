"""Bad input costs that record and nothing else."""

import asyncio
import json
from functools import partial
from threading import Event
from typing import Any

import pytest
from aiohttp import ClientSession, ClientWebSocketResponse, WSMsgType, web
from confluent_kafka import Producer

from integration.between import Between
from integration.harness import Room, wait_for

pytestmark = pytest.mark.integration

_TRADE = (
    b'{"e":"aggTrade","E":1767225600123,"s":"BTCUSDT","a":%s,"p":%s,"q":"1","f":1,"l":1,'
    b'"T":1767225600123,"m":true}'
)

BAD_FRAMES = {
    "not JSON": (b"{oops", "parse"),
    "lacks a field": (b'{"e":"aggTrade","s":"BTCUSDT","E":1,"a":1}', "missing_field"),
    "wrong type": (_TRADE % (b'"1"', b'"1"'), "unexpected_type"),
    "negative price": (_TRADE % (b"1", b'"-1"'), "invalid_field"),
    "price that is no number": (_TRADE % (b"1", b'"NaN"'), "invalid_field"),
    "unknown event": (b'{"e":"surprise","E":1767225600123,"s":"BTCUSDT"}', "unexpected_type"),
}


NO_TRADES = {
    "console producer": b'{"test": "message"}',
    "empty": b"",
    "tombstone": None,
    "truncated": b"\0\0\0\0\xff\x01\x02",
    "unknown schema": b"\0\xff\xff\xff\xff",
    "cut header": b"\0",
}


class MeddlingExchange(Between):
    """Puts each bad frame into the stream when told to."""

    def __init__(self, real_url: str) -> None:
        super().__init__(real_url)
        self.meddle = Event()

    @property
    def ws_url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/ws"

    def routes(self, app: web.Application) -> None:
        app.router.add_get("/{path:.*}", self._relay)

    async def _relay(self, request: web.Request) -> web.WebSocketResponse:
        client = web.WebSocketResponse()
        await client.prepare(request)
        url = f"{self._real_url.replace('http', 'ws')}{request.path_qs}"
        async with ClientSession() as session, session.ws_connect(url) as exchange:
            upward = asyncio.create_task(_forward(client, exchange))
            async for message in exchange:
                if message.type is not WSMsgType.TEXT or client.closed:
                    break
                await client.send_str(message.data)
                if self.meddle.is_set():
                    self.meddle.clear()
                    for frame, _ in BAD_FRAMES.values():
                        await client.send_str(frame.decode())
            upward.cancel()
        return client


async def _forward(client: web.WebSocketResponse, exchange: ClientWebSocketResponse) -> None:
    async for message in client:
        if message.type is WSMsgType.TEXT:
            await exchange.send_str(message.data)
    await exchange.close()


def test_bad_frames_are_dead_letters_and_their_neighbours_are_recorded(room: Room) -> None:
    room.exchange("--rate", "400")
    with MeddlingExchange(room.exchange_url) as between:
        room.extra["BINANCE_WS_URL"] = between.ws_url
        stream = room.stream()
        room.archive()
        room.wait_until_archiving()
        between.meddle.set()
        letters = wait_for(
            lambda: found if len(found := dead_letters(room)) >= len(BAD_FRAMES) else None,
            what="every bad frame to become a dead letter",
        )
        newest = room.stop_trading()
        room.wait_until_archived(newest)
        room.check_promise(newest)
        assert stream.running
        assert stream.end() == 0
    assert [letter["error_type"] for letter in letters] == [kind for _, kind in BAD_FRAMES.values()]
    assert letters[0]["original_message"] == {"_raw": "{oops"}
    assert letters[3]["original_message"]["s"] == "BTCUSDT"
    fields = {"timestamp", "error", "error_type", "topic", "symbol", "connection_id", "sequence"}
    assert fields <= letters[0].keys()
    assert letters[0]["topic"] == room.topic


def test_records_that_are_no_trades_do_not_stop_the_archive(room: Room) -> None:
    room.exchange("--rate", "400")
    room.stream()
    archive = room.archive()
    room.wait_until_archiving()
    producer = Producer({"bootstrap.servers": room.stack.address.bootstrap})
    room.poison = frozenset(value or b"" for value in NO_TRADES.values())
    for count, value in enumerate(NO_TRADES.values(), 1):
        # One after another: each is met among trades, and stops what only it can stop.
        producer.produce(room.topic, value=value, partition=0)
        producer.flush(10)
        wait_for(partial(has_letters, room, count), what=f"{value!r} to be a dead letter")
    newest = room.stop_trading()
    room.wait_until_archived(newest)
    room.check_promise(newest)
    assert archive.end() == 0
    again = room.archive()
    wait_for(lambda: again.events("archive_begins"), what="the archive to start again")
    assert again.end() == 0
    assert len(dead_letters(room)) == len(NO_TRADES), "offsets advanced: none is read again"


def has_letters(room: Room, count: int) -> bool:
    return len(dead_letters(room)) == count


def dead_letters(room: Room) -> list[dict[str, Any]]:
    files = sorted(room.dead_letter_dir.glob("binance-????????.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]
