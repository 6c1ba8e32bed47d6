import asyncio
import json
import random
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

import pytest

from k2.errors import RetryError
from k2.market import BadRow, Trade
from simulation.world.exchange_glitches import Glitches
from simulation.world.exchange_socket import SimSocket
from simulation.world.exchange_world import ExchangeWorld
from simulation.world.node import Node, current_node
from simulation.world.virtual_time import VirtualTimeLoop, virtual_time

URL = "ws://a.exchange/ws?timeUnit=MICROSECOND"
STREAM = "btcusdt@aggTrade"


class Client:
    """Notes what it hears."""

    def __init__(self, room: "Room") -> None:
        self.room = room
        self.frames: list[tuple[dict[str, object] | str, float]] = []
        self.pings = 0
        self.pongs = 0
        self.close_code: int | None = None
        self.ends: list[str] = []
        self.socket: SimSocket | None = None

    def text(self, payload: bytes, recv_ts_ns: int) -> None:
        assert current_node() is self.room.node
        assert recv_ts_ns > 0
        try:
            frame = json.loads(payload)
        except ValueError:
            frame = payload.decode()
        self.frames.append((frame, self.room.loop.time()))

    def pinged(self) -> None:
        self.pings += 1

    def ponged(self) -> None:
        self.pongs += 1

    def refused(self, code: int, text: str) -> None:
        self.close_code = code

    def ended(self) -> None:
        assert self.socket is not None
        self.ends.append(self.socket._connection.why)

    @property
    def ids(self) -> list[int]:
        return [frame["a"] for frame, _ in self.frames if isinstance(frame, dict) and "a" in frame]  # type: ignore[misc]

    @property
    def replies(self) -> list[object]:
        return [
            frame["result"]
            for frame, _ in self.frames
            if isinstance(frame, dict) and "result" in frame
        ]


class Room:
    def __init__(self, loop: VirtualTimeLoop) -> None:
        self.loop = loop
        self.exchange = ExchangeWorld(loop, random.Random(1), rates_per_s={"BTCUSDT": 20})
        self.market = self.exchange.markets["BTCUSDT"]
        self.exchange.open(history=5)
        self.node: Node = loop.node("a")
        self.rest = self.exchange.rest(self.node)

    def pass_s(self, seconds: float) -> None:
        self.loop.run_until_complete(asyncio.sleep(seconds))

    def client(self, *, subscribed: bool = True) -> Client:
        client = Client(self)

        async def connect() -> None:
            client.socket = await self.exchange.connect(URL, client)
            if subscribed:
                text = json.dumps({"method": "SUBSCRIBE", "params": [STREAM], "id": 1})
                client.socket.send_text(text)

        self.loop.run_until_complete(self.loop.spawn(self.node, connect()))
        self.pass_s(1)
        return client

    def glitches(self) -> Glitches:
        glitches = self.exchange.connections[0].glitches = Glitches()
        return glitches


@pytest.fixture
def room() -> Iterator[Room]:
    with virtual_time() as loop:
        yield Room(loop)


def test_ids_and_fills_are_consecutive(room: Room) -> None:
    room.pass_s(60)
    rows = room.market.rows
    assert 900 < len(rows) < 1900
    assert [row.agg_id for row in rows] == list(range(rows[0].agg_id, rows[0].agg_id + len(rows)))
    assert all(b.first_fill == a.last_fill + 1 for a, b in pairwise(rows))


def test_a_subscriber_gets_every_trade_in_order_and_a_little_later(room: Room) -> None:
    client = room.client()
    room.pass_s(30)
    assert client.replies == [None]
    assert len(client.ids) > 400
    assert client.ids == list(range(client.ids[0], client.ids[0] + len(client.ids)))
    for frame, at_s in client.frames[1:]:
        assert isinstance(frame, dict)
        source_id = frame["a"]
        assert isinstance(source_id, int)
        row = room.market.row(source_id)
        assert row is not None
        assert (frame["p"], frame["q"], frame["T"]) == (row.price, row.quantity, row.traded_us)
        assert 0 < at_s - row.published_s < 0.2


def test_control_messages_are_answered_as_on_the_venue(room: Room) -> None:
    client = room.client(subscribed=False)
    assert client.socket is not None
    for number, (method, params) in enumerate(
        [("SUBSCRIBE", [STREAM, "BTCUSDT@aggTrade"]), ("LIST_SUBSCRIPTIONS", None)]
    ):
        request = {"method": method, "id": number, **({"params": params} if params else {})}
        client.socket.send_text(json.dumps(request))
    client.socket.send_text("{}")
    client.socket.send_ping()
    room.pass_s(1)
    assert client.replies == [None, [STREAM, "BTCUSDT@aggTrade"]]
    assert any(isinstance(frame, dict) and frame.get("code") == 2 for frame, _ in client.frames)
    assert client.pongs == 1


def test_more_than_five_frames_in_a_second_close_with_1008(room: Room) -> None:
    client = room.client(subscribed=False)
    assert client.socket is not None
    for _ in range(6):
        client.socket.send_ping()
    room.pass_s(1)
    assert client.close_code == 1008
    assert len(client.ends) == 1


def test_pings_come_every_20_s_and_a_day_ends_the_connection(room: Room) -> None:
    room.exchange.halt()
    client = room.client()
    room.pass_s(86_000)
    assert client.pings == 4_300
    assert client.ends == []
    room.pass_s(400)
    assert client.close_code == 1001


def test_a_frozen_node_answers_no_ping_and_is_closed_after_a_minute(room: Room) -> None:
    client = room.client()
    room.loop.freeze(room.node)
    room.pass_s(79)
    assert len(room.exchange.connections) == 1
    room.pass_s(22)
    assert room.exchange.connections == []
    assert client.ends == []
    before = len(client.ids)
    room.loop.thaw(room.node)
    room.pass_s(1)
    assert client.close_code == 1008
    assert len(client.ids) > before  # what the kernel had taken in meanwhile


@pytest.mark.parametrize("fault", ["close", "reset"])
def test_an_end_is_told_once_whoever_ends_it(room: Room, fault: str) -> None:
    client = room.client()
    assert client.socket is not None
    connection = room.exchange.connections[0]
    if fault == "close":
        connection.close(1001, "bye")
    else:
        connection.reset()
    client.socket.close(1000)
    client.socket.abort()
    client.socket.abort()
    room.pass_s(5)
    assert len(client.ends) == 1
    assert room.exchange.connections == []


def test_a_client_that_closes_hears_the_end(room: Room) -> None:
    client = room.client()
    assert client.socket is not None
    client.socket.close(1000)
    room.pass_s(1)
    assert client.ends == ["closed"]


def test_on_a_dead_link_nothing_is_heard_until_the_client_gives_up(room: Room) -> None:
    client = room.client()
    assert client.socket is not None
    room.exchange.connections[0].lose_link(for_s=600)
    before = len(client.frames)
    client.socket.close(1000)
    room.pass_s(30)
    assert (len(client.frames), client.ends, client.pings) == (before, [], 0)
    client.socket.abort()
    room.pass_s(1)
    assert client.ends == ["aborted"]
    room.pass_s(1000)
    assert client.ends == ["aborted"]


def test_a_stall_delays_and_loses_nothing(room: Room) -> None:
    client = room.client()
    room.exchange.connections[0].stall(for_s=10)
    before = len(client.ids)
    room.pass_s(9)
    assert len(client.ids) <= before + 3
    room.pass_s(20)
    assert client.ids == list(range(client.ids[0], client.ids[0] + len(client.ids)))


def test_a_stall_of_data_lets_pings_through(room: Room) -> None:
    client = room.client()
    room.exchange.connections[0].stall_data(for_s=50)
    before = len(client.ids)
    room.pass_s(45)
    assert client.pings == 2
    assert len(client.ids) <= before + 3
    room.pass_s(20)
    assert client.ids == list(range(client.ids[0], client.ids[0] + len(client.ids)))


def steps(ids: list[int]) -> list[int]:
    return [b - a for a, b in pairwise(ids)]


def test_glitches_do_what_they_say(room: Room) -> None:
    client = room.client()
    glitches = room.glitches()
    glitches.skip["BTCUSDT"] = 3
    room.pass_s(2)
    assert sorted(steps(client.ids))[-2:] == [1, 4]
    client.frames.clear()
    glitches.duplicate["BTCUSDT"] = 2
    glitches.swap["BTCUSDT"] = 1
    room.pass_s(2)
    assert sorted(Counter(client.ids).values())[-3:] == [1, 2, 2]
    assert -1 in steps(client.ids)
    client.frames.clear()
    glitches.absurd["BTCUSDT"] = 1
    glitches.malformed = 1
    room.pass_s(2)
    assert len([i for i in client.ids if i > room.market.first_id + 10**8]) == 1
    assert len([frame for frame, _ in client.frames if isinstance(frame, str)]) == 1
    glitches.silent_until_s["BTCUSDT"] = room.loop.time() + 5
    room.pass_s(0.2)
    before = len(client.ids)
    room.pass_s(4.5)
    assert len(client.ids) == before
    room.pass_s(2)
    assert len(client.ids) > before


def test_refused_and_cut_off_handshakes_raise(room: Room) -> None:
    room.exchange.refuse_until_s["a.exchange"] = room.loop.time() + 10
    with pytest.raises(RetryError, match="503"):
        room.client()
    room.pass_s(10)
    room.exchange.cut_off(room.node, for_s=10)
    with pytest.raises(RetryError, match="timed out"):
        room.client()
    room.pass_s(10)
    assert room.client().ids


def test_a_killed_nodes_connections_are_dropped(room: Room) -> None:
    room.client()
    room.loop.kill(room.node)
    room.pass_s(1)
    assert room.exchange.connections == []


def _rows(room: Room, from_id: int) -> list[Trade | BadRow]:
    return room.loop.run_until_complete(
        room.loop.spawn(room.node, room.rest.rows_from("BTCUSDT", from_id=from_id))
    )


def test_rest_serves_pages_of_the_ledger_behind_its_lag(room: Room) -> None:
    room.exchange.rest_state.lag_s = 5
    room.pass_s(120)
    first_id = room.market.first_id
    page = _rows(room, first_id)
    assert [row.source_id for row in page] == list(range(first_id, first_id + 1000))
    newest = _rows(room, first_id + len(room.market.rows) - 200)[-1]
    row = room.market.row(newest.source_id)
    assert row is not None
    assert 4.9 < room.loop.time() - row.published_s < 6
    told = room.loop.run_until_complete(room.loop.spawn(room.node, room.rest.newest_id("BTCUSDT")))
    assert told is not None
    assert told >= newest.source_id


def test_rest_lacks_hidden_rows_for_a_while(room: Room) -> None:
    room.pass_s(10)
    first_id = room.market.first_id
    now_s = room.loop.time()
    room.market.hide(first_id=first_id + 2, last_id=first_id + 3, from_s=now_s, until_s=now_s + 5)
    assert [row.source_id - first_id for row in _rows(room, first_id)[:4]] == [0, 1, 4, 5]
    room.pass_s(5)
    assert [row.source_id - first_id for row in _rows(room, first_id)[:4]] == [0, 1, 2, 3]


def test_a_voided_row_is_void_on_stream_and_rest(room: Room) -> None:
    client = room.client()
    room.market.void_next = True
    room.pass_s(2)
    void = next(row for row in room.market.rows if row.void)
    assert {"a": void.agg_id, "p": "0", "q": "0", "f": -1, "l": -1}.items() <= next(
        frame
        for frame, _ in client.frames
        if isinstance(frame, dict) and frame.get("a") == void.agg_id
    ).items()
    bad = _rows(room, void.agg_id)[0]
    assert isinstance(bad, BadRow)
    assert (bad.source_id, bad.error_type) == (void.agg_id, "void")


def test_rest_outages_raise(room: Room) -> None:
    room.exchange.rest_state.down_until_s = room.loop.time() + 5
    with pytest.raises(RetryError, match="503"):
        _rows(room, 0)
    room.pass_s(5)
    room.exchange.rest_state.slow_by_s = 11
    room.exchange.rest_state.slow_until_s = room.loop.time() + 5
    with pytest.raises(RetryError, match="timed out"):
        _rows(room, 0)
