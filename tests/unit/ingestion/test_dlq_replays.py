import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from k2.errors import RetryError
from k2.ingestion.dlq_replays import Replays, declared_ranges, still_declared
from k2.ingestion.repairs import Repairs
from k2.kafka.gap_records import GapEvent, GapRecord, decode_gap, encode_gap
from k2.kafka.position import OPEN_GAPS_MAX, OpenGap, ShardPosition
from k2.kafka.replay_request import ReplayRequest, encode_replay, replay_key
from k2.kafka.transaction import FencedError
from k2.market import BadRow, Gap, GapClass, IdRange, Origin, Trade
from unit.ingestion.shard_world import (
    NAMES,
    FakeRest,
    ShardWorld,
    beside,
    until,
    virtual_host,
    virtually,
)
from unit.trades import trade

X = "BTCUSDT"


class Scene:
    """A writer at id 100; ids that were declared, and what REST has of them."""

    def __init__(self, *, open_ids: Iterable[int] = (), closed_ids: Iterable[int] = ()) -> None:
        self.world = ShardWorld(next_id=100)
        self.log = self.world.log
        self.log.gap_records = self._gap_records  # type: ignore[attr-defined] # as ShardLog's
        self.shard = self.world.shard
        self.declared: list[GapRecord] = []
        self.unreadable = 0
        self.while_reading: Callable[[], Awaitable[None]] | None = None
        closed_ids = set(closed_ids)
        for source_id in sorted({*open_ids, *closed_ids}):
            gap_class = GapClass.REJECTED if source_id in closed_ids else GapClass.MISSING
            gap = Gap(X, IdRange(source_id, source_id), gap_class, "why")
            self.declared.append(decode_gap(encode_gap(gap, declared_ts_us=1)))
        position = self.position
        now_us = virtual_host().wall_ns() // 1000
        open_gaps = tuple(OpenGap(X, IdRange(i, i), now_us) for i in sorted(open_ids))
        self.log.say(msgspec.structs.replace(position, open_gaps=open_gaps))
        self.rest = FakeRest()
        self.rest.newest = 99
        self.rejected: list[BadRow] = []
        self.repairs = Repairs(
            self.shard, self.rest, reject_row=self.rejected.append, host=virtual_host()
        )
        self.replays = Replays(self.shard, self.rest, repairs=self.repairs, host=virtual_host())

    @property
    def position(self) -> ShardPosition:
        assert self.log.committed.position is not None
        return self.log.committed.position

    def ask(self, *source_ids: int, symbol: str = X, request_id: str = "r1") -> None:
        """Let an operator's wish arrive."""
        trades = tuple(letter(source_id, symbol) for source_id in source_ids)
        value = encode_replay(ReplayRequest(symbol, trades, request_id))
        self.log.committed = self.log.committed.taken_in(replay_key(request_id), value)
        self.follow()

    def follow(self) -> None:
        self.log.record = self.log.committed
        self.shard.followed()

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(0.05)
            if self.log.record != self.log.committed:
                self.follow()

    async def play(self, story: Coroutine[Any, Any, None]) -> None:
        await self.shard.take_over()
        write = self.shard.write(asyncio.Event())
        await beside(write, beside(self.replays.run(), beside(self._follow(), story)))

    async def answered(self) -> None:
        await until(lambda: not self.log.committed.replays, within_s=100)
        await asyncio.sleep(0.2)

    async def _gap_records(self) -> list[GapRecord]:
        written = [decode_gap(r.value) for r in self.log.records if r.topic == NAMES.gaps]
        await asyncio.sleep(0.1)
        if self.unreadable:
            self.unreadable -= 1
            raise RetryError("Kafka is away")
        meanwhile, self.while_reading = self.while_reading, None
        if meanwhile is not None:
            await meanwhile()
        return [*self.declared, *written]

    @property
    def brought(self) -> list[int]:
        return self.world.repaired

    @property
    def told(self) -> list[IdRange]:
        records = [decode_gap(r.value) for r in self.log.records if r.topic == NAMES.gaps]
        assert all(record.event is GapEvent.REPAIRED for record in records)
        return [record.ids for record in records]

    @property
    def open_ids(self) -> list[int]:
        return [gap.ids.first_id for gap in self.position.open_gaps]


def letter(source_id: int, symbol: str = X) -> Trade:
    return msgspec.structs.replace(trade(source_id, symbol), price=Decimal(7), origin=Origin.STREAM)


def in_scene(scene_of: Any, story_of: Any) -> None:
    async def tell() -> None:
        scene = scene_of()
        await scene.play(story_of(scene))

    virtually(tell())


def test_closed_and_open_ids_are_brought_and_told_once_and_the_order_is_deleted() -> None:
    async def story(scene: Scene) -> None:
        scene.ask(10, 11, 20)
        await scene.answered()
        assert sorted(scene.brought) == [10, 11, 20]
        assert sorted(scene.told) == [IdRange(10, 11), IdRange(20, 20)]
        assert scene.open_ids == []
        assert scene.world.ids == [], "nothing of it is in the trades topic"

    in_scene(lambda: Scene(open_ids=[20], closed_ids=[10, 11]), story)


def test_nothing_that_is_recorded_or_repaired_or_unheard_of_is_written() -> None:
    async def story(scene: Scene) -> None:
        scene.ask(10, 50, 500)
        await scene.answered()
        assert scene.brought == [10]
        for n in range(3):
            scene.ask(10, 50, request_id=f"again{n}")
            await scene.answered()
        assert scene.brought == [10]

    in_scene(lambda: Scene(closed_ids=[10]), story)


def test_two_orders_for_one_id_bring_it_once() -> None:
    async def story(scene: Scene) -> None:
        scene.ask(10)
        scene.ask(10, request_id="r2")
        await scene.answered()
        assert scene.brought == [10]

    in_scene(lambda: Scene(closed_ids=[10]), story)


def test_rest_has_the_last_word_and_the_letter_speaks_where_rest_is_silent() -> None:
    async def tell() -> None:
        scene = Scene(closed_ids=[10, 11, 12])
        scene.rest.lost, scene.rest.bad = {11}, {12: "void"}
        encoded: list[Trade] = []
        encode = scene.shard.encode

        def keep(placed: Any) -> bytes:
            encoded.append(placed.trade)
            return encode(placed)

        scene.shard.encode = keep  # type: ignore[method-assign]

        async def story() -> None:
            scene.ask(10, 11, 12)
            await scene.answered()
            assert [(t.source_id, t.price, t.origin) for t in encoded] == [
                (10, Decimal(1), Origin.HEALED),
                (11, Decimal(7), Origin.STREAM),
            ]
            assert scene.told == [IdRange(10, 11)]
            assert scene.open_ids == [], "12 stays declared and is not looked for"
            assert scene.rejected == [], "its letter is there already"
            assert scene.rest.asked.count(11) == 1, "asked for twice, once beside the others"

        await scene.play(story())

    virtually(tell())


def test_a_rest_or_kafka_that_is_away_is_waited_for() -> None:
    async def story(scene: Scene) -> None:
        scene.rest.failures, scene.unreadable = 3, 2
        scene.ask(10)
        await scene.answered()
        assert scene.brought == [10]

    in_scene(lambda: Scene(closed_ids=[10]), story)


@pytest.mark.parametrize("lands_first", [0, 1, 2])
@pytest.mark.parametrize("outcome", ["landed", "lost", "aborted", "resumed"])
def test_each_id_is_written_once_whatever_becomes_of_a_commit(
    outcome: str, lands_first: int
) -> None:
    async def story(scene: Scene) -> None:
        scene.log.outcomes = ["lands"] * lands_first + [outcome]
        scene.ask(10, 20)
        await scene.answered()
        assert sorted(scene.brought) == [10, 20]
        assert sorted(scene.told) == [IdRange(10, 10), IdRange(20, 20)]
        assert scene.open_ids == []

    in_scene(lambda: Scene(open_ids=[20], closed_ids=[10]), story)


@pytest.mark.parametrize("lands_first", [0, 1, 2])
def test_a_successor_goes_on_where_the_one_before_it_ended(lands_first: int) -> None:
    async def tell() -> None:
        scene = Scene(open_ids=[20], closed_ids=[10])
        scene.log.outcomes = ["lands"] * lands_first + ["fenced"]

        async def story() -> None:
            scene.ask(10, 20)
            await asyncio.sleep(1000)

        with pytest.raises(FencedError):
            await scene.play(story())
        await scene.shard.step_down()
        scene.follow()
        assert scene.log.committed.replays, "the order waits for a successor"
        await scene.shard.take_over()
        await scene.play(scene.answered())
        assert sorted(scene.brought) == [10, 20]
        assert scene.open_ids == []

    virtually(tell())


def test_an_id_that_is_repaired_while_the_records_are_read_is_not_opened_again() -> None:
    async def story(scene: Scene) -> None:
        async def meanwhile() -> None:
            # What is read is of a moment before.
            assert await scene.repairs.write(X, [letter(20)], [])

        scene.while_reading = meanwhile
        scene.ask(10, 20)
        await scene.answered()
        assert sorted(scene.brought) == [10, 20]

    in_scene(lambda: Scene(open_ids=[20], closed_ids=[10]), story)


def test_no_open_gap_is_forgotten_for_a_replay() -> None:
    async def story(scene: Scene) -> None:
        before = scene.open_ids
        scene.rest.lost = set(before)
        scene.ask(1, 3, 5)
        await scene.answered()
        assert scene.brought == [1], "there is room for one"
        assert scene.open_ids == before

    many = range(10, 10 + 2 * (OPEN_GAPS_MAX - 1), 2)
    in_scene(lambda: Scene(open_ids=many, closed_ids=[1, 3, 5]), story)


def test_of_a_delisted_symbol_the_letters_own_words_are_taken() -> None:
    async def story(scene: Scene) -> None:
        scene.rest.unlisted = {X}
        scene.ask(10)
        await until(lambda: scene.brought == [10])
        await scene.answered()
        assert len(scene.rest.asked) == 2

    in_scene(lambda: Scene(closed_ids=[10]), story)


@pytest.mark.parametrize("below", [0, 1])
def test_a_page_that_does_not_reach_what_was_asked_for_is_not_asked_for_all_the_time(
    below: int,
) -> None:
    async def story(scene: Scene) -> None:
        async def rows_from(symbol: str, *, from_id: int) -> list[Trade | BadRow]:
            await asyncio.sleep(0.02)
            scene.rest.asked.append(from_id)
            return [trade(from_id - 1, symbol)] * below

        scene.rest.rows_from = rows_from  # type: ignore[method-assign]
        scene.ask(10)
        await scene.answered()
        assert (scene.brought, scene.rest.asked) == ([10], [10, 10])

    in_scene(lambda: Scene(closed_ids=[10]), story)


def test_the_wish_of_a_symbol_that_left_waits_for_its_return_and_no_other_for_it() -> None:
    async def story(scene: Scene) -> None:
        left = "ETHUSDT"
        scene.log.stand_at(100, left)
        record = Gap(left, IdRange(30, 30), GapClass.REJECTED, "why")
        scene.declared.append(decode_gap(encode_gap(record, declared_ts_us=1)))
        with capture_logs() as logs:
            scene.ask(30, symbol=left, request_id="left")
            scene.ask(10)
            await until(lambda: scene.brought == [10])
            await asyncio.sleep(3600)
        assert [log["symbol"] for log in logs if log["event"] == "replay_waits"] == [left]
        assert [one.request_id for one in scene.log.committed.replays] == ["left"]
        assert scene.rest.asked == [10]
        scene.shard.carry(left)
        scene.follow()  # the writer records who joined
        await scene.answered()
        assert scene.brought == [10, 30]

    in_scene(lambda: Scene(closed_ids=[10]), story)


def gap(first_id: int, last_id: int, event: GapEvent = GapEvent.DECLARED) -> GapRecord:
    return GapRecord(event, X, IdRange(first_id, last_id), GapClass.REJECTED, "", 1, None)


def test_what_is_still_declared() -> None:
    records = [gap(5, 9), gap(20, 20), gap(1, 2), gap(7, 7, GapEvent.REPAIRED)]
    assert declared_ranges(records) == {
        X: [IdRange(1, 2), IdRange(5, 6), IdRange(8, 9), IdRange(20, 20)]
    }
    assert still_declared(X, [2, 3, 6, 7, 8, 20], records) == [
        *(IdRange(2, 2), IdRange(6, 6), IdRange(8, 8), IdRange(20, 20)),
    ]
    assert still_declared("ETHUSDT", [2], records) == []


def test_what_is_looked_for_is_missing_with_what_is_declared() -> None:
    looked_for = [OpenGap(X, IdRange(8, 12), 1), OpenGap("ETHUSDT", IdRange(3, 3), 1)]
    missing = declared_ranges([gap(5, 9), gap(11, 11, GapEvent.REPAIRED)], looked_for)
    assert {i for ids in missing[X] for i in range(ids.first_id, ids.last_id + 1)} == {
        *range(5, 11),
        12,
    }
    assert missing["ETHUSDT"] == [IdRange(3, 3)]
