import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from k2.ingestion.backfill import ASK_AGAIN_AFTER_S, Backfill
from k2.ingestion.past import DELISTED_DELAY_S
from k2.kafka.gap_records import GapEvent, decode_gap
from k2.kafka.position import BackfillRequest, OpenGap, SymbolPosition, request_key
from k2.market import BadRow, GapClass, IdRange, Trade
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


class Scene:
    """A writer whose tape of BTCUSDT begins at an id and ends at 10,000."""

    def __init__(self, *, first_id: int | None = 5_000, next_id: int = 10_000) -> None:
        self.world = ShardWorld(next_id=next_id)
        self.shard = self.world.shard
        last_id = None if first_id is None else next_id - 1
        self.begin_at(SymbolPosition(next_id, last_id, first_id))
        self.rest = FakeRest()
        self.rest.newest = next_id - 1
        self.busy = False
        self.follows_every_s = 0.02
        self.rejected: list[BadRow] = []

    def begin_at(self, where: SymbolPosition) -> None:
        position = self.world.log.committed.position
        assert position is not None
        self.world.log.say(msgspec.structs.replace(position, symbols={"BTCUSDT": where}))

    def ask(self, from_id: int, *, symbol: str = "BTCUSDT", name: str = "1") -> None:
        committed = self.world.log.committed
        requests = (*committed.requests, BackfillRequest(symbol, from_id, name))
        self.world.log.committed = msgspec.structs.replace(committed, requests=requests)

    async def play(self, story: Coroutine[Any, Any, None]) -> None:
        """Serve a term while something happens."""
        backfill = Backfill(
            self.shard,
            self.rest,
            reject_row=self.rejected.append,
            busy=lambda: self.busy,
            host=virtual_host(),
        )
        await self.shard.take_over()
        working = beside(backfill.run(), beside(self._follow(), story))
        await beside(self.shard.write(asyncio.Event()), working)
        self.world.log.record = self.world.log.committed
        await self.shard.step_down()

    async def done(self) -> None:
        def is_done() -> bool:
            committed, told = self.world.log.committed, self.shard.told.position
            return not committed.requests and not told.backfills and committed.position == told

        await until(is_done)

    async def fill(self, from_id: int) -> None:
        self.ask(from_id)
        await self.play(self.done())

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(self.follows_every_s)
            if self.world.log.record != self.world.log.committed:
                self.world.follow()

    @property
    def pages(self) -> list[list[int]]:
        """The ids each transaction brought to ``.repairs``."""
        found = []
        for transaction in self.world.log.transactions:
            texts = [ShardWorld.text(r) for r in transaction if r.topic == NAMES.repairs]
            if texts:
                found.append([int(text.partition(">")[2]) for text in texts])
        return found

    @property
    def gaps(self) -> list[tuple[GapEvent, GapClass, IdRange]]:
        records = [decode_gap(r.value) for r in self.world.log.records if r.topic == NAMES.gaps]
        return [(record.event, record.gap_class, record.ids) for record in records]

    @property
    def first_id(self) -> int | None:
        return self.world.stands_at[2]


def test_the_past_is_filled_page_by_page_downwards_each_with_its_low_water_mark() -> None:
    async def tell() -> None:
        scene = Scene()
        await scene.fill(2_500)
        assert scene.rest.asked == [4_000, 3_000, 2_500]
        assert scene.pages == [
            list(range(4_000, 5_000)),
            list(range(3_000, 4_000)),
            list(range(2_500, 3_000)),
        ]
        marks = [
            msgspec.json.decode(record.value or b"")["symbols"]["BTCUSDT"].get("first_id")
            for record in scene.world.log.records
            if record.key == b"position"
        ]
        assert marks == [5_000, 4_000, 3_000, 2_500], "the first took the request up"
        assert scene.world.stands_at == (10_000, 9_999, 2_500)
        assert (scene.gaps, scene.world.ids) == ([], [])

    virtually(tell())


def test_a_request_is_taken_up_and_deleted_in_one_transaction() -> None:
    async def tell() -> None:
        scene = Scene()
        scene.ask(4_000)
        scene.busy = True

        async def story() -> None:
            await until(lambda: scene.world.log.transactions != [])
            (transaction,) = scene.world.log.transactions
            assert [(r.key, r.value is None) for r in transaction] == [
                (request_key("1"), True),
                (b"position", False),
            ]
            assert scene.shard.told.position.backfills == {"BTCUSDT": 4_000}
            await asyncio.sleep(60)
            assert (scene.rest.asked, len(scene.world.log.transactions)) == ([], 1)
            scene.busy = False
            await scene.done()

        await scene.play(story())
        assert scene.first_id == 4_000

    virtually(tell())


def test_a_request_is_taken_up_once_however_late_that_is_followed() -> None:
    async def tell() -> None:
        scene = Scene()
        scene.follows_every_s = 5.0
        scene.ask(4_900)

        async def story() -> None:
            await scene.done()
            await asyncio.sleep(4 * scene.follows_every_s)

        await scene.play(story())
        deleted = [record.key for record in scene.world.log.records if record.value is None]
        assert deleted == [request_key("1")]

    virtually(tell())


def test_a_request_that_comes_while_nothing_is_to_do_is_heard() -> None:
    async def tell() -> None:
        scene = Scene()

        async def story() -> None:
            await asyncio.sleep(3600)
            assert scene.world.log.records == []
            scene.ask(4_900)
            await scene.done()
            scene.ask(4_800, name="2")
            await scene.done()

        await scene.play(story())
        assert scene.pages == [list(range(4_900, 5_000)), list(range(4_800, 4_900))]

    virtually(tell())


def test_a_restart_in_the_middle_goes_on_exactly_below_what_is_written() -> None:
    async def tell() -> None:
        scene = Scene()
        scene.ask(2_000)

        async def first_term() -> None:
            await until(lambda: len(scene.pages) == 1)

        await scene.play(first_term())
        assert scene.first_id == 4_000
        await scene.play(scene.done())
        assert [page[0] for page in scene.pages] == [4_000, 3_000, 2_000]
        assert sorted(scene.world.repaired) == list(range(2_000, 5_000))

    virtually(tell())


@pytest.mark.parametrize(
    ("exchange_first_id", "pages"),
    [
        (3_500, [(4_000, 5_000), (3_500, 4_000)]),
        (4_000, [(4_000, 5_000)]),
        (4_998, [(4_998, 5_000)]),
        (5_000, []),
    ],
)
def test_ids_that_never_existed_are_not_declared_the_past_begins_with_the_exchange(
    exchange_first_id: int, pages: list[tuple[int, int]]
) -> None:
    async def tell() -> None:
        scene = Scene()
        scene.rest.first = exchange_first_id
        await scene.fill(2_500)
        assert scene.pages == [list(range(*page)) for page in pages]
        assert scene.gaps == []
        assert scene.first_id == exchange_first_id
        assert scene.shard.told.position.open_gaps == ()

    virtually(tell())


def test_a_hole_above_the_exchanges_first_id_is_declared_all_the_same() -> None:
    async def tell() -> None:
        scene = Scene()
        scene.rest.lost = set(range(3_900, 5_000))
        await scene.fill(3_000)
        assert [ids for _event, _class, ids in scene.gaps] == [
            IdRange(4_000, 4_999),
            IdRange(3_900, 3_999),
        ]
        assert scene.first_id == 3_000

    virtually(tell())


@pytest.mark.parametrize("outcome", ["aborted", "landed", "lost", "resumed"])
def test_each_page_is_written_once_whatever_becomes_of_its_transaction(outcome: str) -> None:
    async def tell() -> None:
        scene = Scene()
        scene.world.log.outcomes = [outcome] * 3
        await scene.fill(3_000)
        assert sorted(scene.world.repaired) == list(range(3_000, 5_000))
        assert scene.first_id == 3_000

    virtually(tell())


def test_rows_rest_lacks_are_asked_for_twice_and_then_declared() -> None:
    async def tell() -> None:
        scene = Scene()
        scene.rest.lost = {4_500, 4_501, 4_700}
        scene.ask(4_000)

        async def story() -> None:
            await until(lambda: len(scene.rest.asked) == 1)
            await asyncio.sleep(ASK_AGAIN_AFTER_S / 2)
            assert scene.pages == []
            scene.rest.lost = {4_500, 4_501}  # it had only trailed
            await scene.done()

        await scene.play(story())
        assert scene.rest.asked == [4_000, 4_000]
        assert scene.gaps == [(GapEvent.DECLARED, GapClass.MISSING, IdRange(4_500, 4_501))]
        assert len(scene.world.repaired) == 998
        assert [gap.ids for gap in scene.shard.told.position.open_gaps] == [IdRange(4_500, 4_501)]
        assert scene.first_id == 4_000

    virtually(tell())


def test_rows_nobody_can_use_are_declared_with_their_class_and_buried_once() -> None:
    async def tell() -> None:
        scene = Scene()
        scene.rest.bad = {4_990: "void", 4_995: "invalid_field"}
        scene.world.log.outcomes = ["lands", "aborted"]
        await scene.fill(4_980)
        assert scene.gaps == [
            (GapEvent.DECLARED, GapClass.VOID, IdRange(4_990, 4_990)),
            (GapEvent.DECLARED, GapClass.REJECTED, IdRange(4_995, 4_995)),
        ]
        assert [row.source_id for row in scene.rejected] == [4_990, 4_995]
        assert scene.shard.told.position.open_gaps == ()
        assert len(scene.world.repaired) == 18

    virtually(tell())


def test_ids_declared_before_the_first_trade_that_come_back_are_closed() -> None:
    async def tell() -> None:
        scene = Scene()
        position = scene.world.log.committed.position
        assert position is not None
        gap = OpenGap("BTCUSDT", IdRange(4_990, 4_999), 1)
        scene.world.log.say(msgspec.structs.replace(position, open_gaps=(gap,)))
        await scene.fill(4_980)
        assert scene.gaps == [(GapEvent.REPAIRED, GapClass.MISSING, IdRange(4_990, 4_999))]
        assert scene.shard.told.position.open_gaps == ()
        assert scene.world.repaired == list(range(4_980, 5_000))

    virtually(tell())


def test_a_page_that_is_out_of_date_is_not_written() -> None:
    async def tell() -> None:
        scene = Scene()
        scene.rest.bad = {4_700: "invalid_field"}
        scene.rest.way_s = 1.0
        scene.ask(4_000)

        async def story() -> None:
            await until(lambda: scene.rest.asked != [])
            position = scene.shard.told.position
            lower = {"BTCUSDT": SymbolPosition(10_000, 9_999, 4_500)}
            position = msgspec.structs.replace(position, symbols=lower)
            scene.shard.told = scene.shard.told._replace(position=position)
            await scene.done()

        await scene.play(story())
        assert scene.pages == [list(range(4_000, 4_500))]
        assert (scene.gaps, scene.rejected) == ([], [])

    virtually(tell())


def test_a_rest_that_is_away_is_waited_for() -> None:
    async def tell() -> None:
        scene = Scene()
        scene.rest.failures = 3
        await scene.fill(4_900)
        assert scene.world.repaired == list(range(4_900, 5_000))
        assert len(scene.rest.asked) == 4

    virtually(tell())


@pytest.mark.parametrize("from_id", [5_000, 7_000, 99_999])
def test_a_tape_that_begins_there_already_is_left_as_it_is(from_id: int) -> None:
    async def tell() -> None:
        scene = Scene()
        await scene.fill(from_id)
        assert (scene.rest.asked, scene.first_id) == ([], 5_000)

    virtually(tell())


@pytest.mark.parametrize("from_id", [100, 500])
def test_so_is_one_that_has_not_begun_to_be_written(from_id: int) -> None:
    async def tell() -> None:
        scene = Scene(first_id=None, next_id=100)
        await scene.fill(from_id)
        assert (scene.rest.asked, scene.world.stands_at) == ([], (100, None, None))

    virtually(tell())


def test_a_tape_that_has_not_begun_to_be_written_gets_its_past_all_the_same() -> None:
    async def tell() -> None:
        scene = Scene(first_id=None, next_id=100)
        await scene.fill(40)
        assert scene.world.repaired == list(range(40, 100))
        assert scene.world.stands_at == (100, None, 40)

    virtually(tell())


def test_the_whole_past_ends_at_the_first_id() -> None:
    async def tell() -> None:
        scene = Scene(first_id=1_500)
        await scene.fill(0)
        assert scene.world.repaired == [*range(500, 1_500), *range(500)]
        assert scene.first_id == 0

    virtually(tell())


def test_a_request_that_cannot_be_met_is_taken_away_and_no_other_waits_for_it() -> None:
    async def tell() -> None:
        scene = Scene()
        scene.ask(0, symbol="NOUSDT", name="1")
        scene.ask(4_990, name="2")
        await scene.play(scene.done())
        assert scene.world.repaired == list(range(4_990, 5_000))
        deleted = [record.key for record in scene.world.log.records if record.value is None]
        assert deleted == [request_key("1"), request_key("2")]

    virtually(tell())


def test_a_tape_whose_beginning_is_not_recorded_is_not_filled_and_nothing_is_written_twice() -> (
    None
):
    async def tell() -> None:
        scene = Scene()
        scene.begin_at(SymbolPosition(10_000, 9_999, None))
        await scene.fill(4_000)
        assert (scene.rest.asked, scene.world.stands_at) == ([], (10_000, 9_999, None))

    virtually(tell())


LEFT = "ETHUSDT"
"""A symbol with a tape that left the active set: nobody carries it."""


def with_tape(scene: Scene, symbol: str, *, backfill: int | None = None) -> None:
    """Give the log the tape of one more symbol, from 5,000 to 10,000."""
    position = scene.world.log.committed.position
    assert position is not None
    symbols = {**position.symbols, symbol: SymbolPosition(10_000, 9_999, 5_000)}
    backfills = {} if backfill is None else {symbol: backfill}
    scene.world.log.say(msgspec.structs.replace(position, symbols=symbols, backfills=backfills))


def first_id_of(scene: Scene, symbol: str) -> int | None:
    return scene.shard.told.position.symbols[symbol].first_id


def test_a_backfill_of_a_symbol_that_left_waits_for_its_return_and_no_other_for_it() -> None:
    async def tell() -> None:
        scene = Scene()
        with_tape(scene, LEFT, backfill=4_990)
        scene.ask(4_990)

        async def story() -> None:
            await until(lambda: scene.first_id == 4_990)
            for name in ("2", "3"):
                scene.ask(4_000, symbol=LEFT, name=name)
                await until(lambda: not scene.world.log.committed.requests)
            await asyncio.sleep(3600)
            assert first_id_of(scene, LEFT) == 5_000
            assert scene.rest.asked == [4_990]
            assert scene.shard.told.position.backfills == {LEFT: 4_000}
            scene.shard.carry(LEFT)
            scene.shard.followed()  # the writer records who joined
            await until(lambda: first_id_of(scene, LEFT) == 4_000)

        with capture_logs() as logs:
            await scene.play(story())
        assert [log["symbol"] for log in logs if log["event"] == "backfill_waits"] == [LEFT]

    virtually(tell())


def test_a_symbol_that_leaves_while_its_past_is_filled_keeps_what_is_left_to_do() -> None:
    async def tell() -> None:
        scene = Scene()
        scene.ask(1_000)

        async def story() -> None:
            await until(lambda: len(scene.pages) == 1)
            scene.shard.drop("BTCUSDT")
            await asyncio.sleep(60)
            asked = len(scene.rest.asked)
            await asyncio.sleep(3600)
            assert len(scene.rest.asked) == asked < 4
            assert scene.shard.told.position.backfills == {"BTCUSDT": 1_000}

        await scene.play(story())

    virtually(tell())


def test_a_delisted_symbol_is_asked_for_now_and_then_and_no_other_waits_for_it() -> None:
    async def tell() -> None:
        scene = Scene()
        with_tape(scene, "ETHUSDT")
        scene.shard.carry("ETHUSDT")
        scene.rest.unlisted = {"BTCUSDT"}
        scene.ask(4_000, name="1")
        scene.ask(4_000, symbol="ETHUSDT", name="2")

        async def story() -> None:
            await until(lambda: first_id_of(scene, "ETHUSDT") == 4_000, within_s=10)
            asked = len(scene.rest.asked)
            await asyncio.sleep(10 * DELISTED_DELAY_S)
            assert 8 <= len(scene.rest.asked) - asked <= 11
            scene.rest.unlisted = set()
            await scene.done()
            assert scene.first_id == 4_000

        await scene.play(story())

    virtually(tell())


class MangledRest(FakeRest):
    """Answers the first question with the rows a test makes of the right ones."""

    def __init__(self, mangle: Callable[[list[Trade | BadRow]], list[Trade | BadRow]]) -> None:
        super().__init__()
        self._mangle = mangle

    async def rows_from(self, symbol: str, *, from_id: int) -> list[Trade | BadRow]:
        rows = await super().rows_from(symbol, from_id=from_id)
        return self._mangle(rows) if from_id == self.asked[0] else rows


@pytest.mark.parametrize(
    "mangle",
    [
        lambda rows: rows[:1] + rows,
        lambda rows: [trade(i) for i in range(3_980, 4_000)] + rows,
        lambda rows: rows[::-1],
        lambda rows: [BadRow(-1, "invalid_field", "a=-1", {"a": -1}), *rows],
        lambda rows: rows + [trade(i) for i in range(5_000, 5_010)],
    ],
    ids=["repeated", "below fromId", "descending", "negative", "beyond"],
)
def test_rows_that_were_not_asked_for_are_passed_over(mangle: Any) -> None:
    async def tell() -> None:
        scene = Scene()
        scene.rest = MangledRest(mangle)
        scene.rest.newest = 9_999
        await scene.fill(3_000)
        assert scene.pages == [list(range(4_000, 5_000)), list(range(3_000, 4_000))]
        assert (scene.gaps, scene.rejected) == ([], [])

    virtually(tell())


def test_a_row_with_a_negative_id_is_not_where_the_exchange_begins() -> None:
    async def tell() -> None:
        scene = Scene()
        scene.rest.first = 4_500
        rows_from = scene.rest.rows_from

        async def with_one_more(symbol: str, *, from_id: int) -> list[Trade | BadRow]:
            rows = await rows_from(symbol, from_id=from_id)
            return [BadRow(-1, "invalid_field", "a=-1", {"a": -1}), *rows]

        scene.rest.rows_from = with_one_more  # type: ignore[method-assign]
        await scene.fill(4_000)
        assert (scene.first_id, scene.gaps) == (4_500, [])

    virtually(tell())
