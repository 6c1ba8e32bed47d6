import asyncio
from collections.abc import Coroutine
from typing import Any

from k2.ingestion.healer import (
    BEGIN_DELAY_S,
    FAR_AHEAD,
    PAGES_AT_ONCE_MAX,
    POLL_DELAY_MAX_S,
    Healing,
    SymbolHealer,
)
from k2.market import BadRow, Gap, GapClass, IdRange, Trade
from k2.tape.arbiter import Placed, SymbolTape
from unit.ingestion.shard_world import FakeRest, beside, until, virtual_host, virtually
from unit.trades import trade

LEG_WAIT_S = 0.25


class Scene:
    """One symbol's tape at id 100, healed by a fake REST into a list."""

    def __init__(
        self,
        *,
        heal_wait_max_s: float = 60.0,
        leg_wait_s: float = 0.0,
        page_rows: int = 1000,
        next_id: int | None = 100,
    ) -> None:
        previous_id = None if next_id is None else next_id - 1
        self.tape = SymbolTape("BTCUSDT", next_id=next_id, previous_id=previous_id)
        self.rest = FakeRest(page_rows=page_rows)
        self.written: list[Placed | Gap] = []
        self.rejected_rows: list[BadRow] = []
        self.rejected_trades: list[Trade] = []
        self.started_at: list[int] = []
        self.spilled: list[int] = []
        self.room = True
        self.hears = True
        healing = Healing(
            rest=self.rest,
            write=self.written.extend,
            unspill=self._unspill,
            room=lambda: self.room,
            hears=lambda: self.hears,
            reject_row=self.rejected_rows.append,
            reject_trade=self.rejected_trades.append,
            host=virtual_host(),
            heal_wait_max_s=heal_wait_max_s,
            leg_wait_s=leg_wait_s,
        )
        self.healer = SymbolHealer(self.tape, healing, record_start=self.started_at.append)

    def stream(self, *ids: int) -> None:
        for source_id in ids:
            self.written += self.tape.offer(trade(source_id))
        if self.tape.held:
            self.healer.hole()

    def play(self, story: Coroutine[Any, Any, None]) -> None:
        async def run() -> None:
            await beside(self.healer.run(), story)

        virtually(run())

    async def reaches(self, next_id: int, *, within_s: float = 1000.0) -> None:
        await until(lambda: self.tape.next_id == next_id, within_s=within_s)

    @property
    def ids(self) -> list[int]:
        return [item.trade.source_id for item in self.written if isinstance(item, Placed)]

    @property
    def gaps(self) -> list[tuple[GapClass, IdRange]]:
        return [(item.gap_class, item.ids) for item in self.written if isinstance(item, Gap)]

    def _unspill(self, _symbol: str) -> bool:
        if self.tape.hole is not None or not self.spilled:
            return False
        spilled, self.spilled = self.spilled, []
        for source_id in spilled:
            self.written += self.tape.offer(trade(source_id))
        return True


def test_a_hole_is_filled_by_rest() -> None:
    scene = Scene()
    scene.rest.newest = 105

    async def story() -> None:
        scene.stream(104, 105)
        await scene.reaches(106)

    scene.play(story())
    assert scene.ids == [100, 101, 102, 103, 104, 105]
    assert scene.gaps == []


def test_a_rest_that_trails_the_stream_is_waited_for() -> None:
    scene = Scene(heal_wait_max_s=0)  # nothing may be declared: nobody lacks anything

    async def story() -> None:
        scene.stream(104)
        await until(lambda: len(scene.rest.asked) > 3)
        scene.rest.newest = 101
        await scene.reaches(102)
        scene.rest.newest = 103
        await scene.reaches(105)

    scene.play(story())
    assert scene.ids == [100, 101, 102, 103, 104]
    assert scene.gaps == []


def test_a_hole_that_stays_open_is_asked_for_less_and_less_often() -> None:
    scene = Scene()

    async def story() -> None:
        scene.stream(104)
        await asyncio.sleep(600)
        assert 600 / POLL_DELAY_MAX_S * 0.9 < len(scene.rest.asked) < 600 / POLL_DELAY_MAX_S + 10

    scene.play(story())


def test_an_id_somewhat_ahead_does_not_have_rest_asked_at_every_trade() -> None:
    scene = Scene()

    async def story() -> None:
        scene.stream(100 + FAR_AHEAD // 2)  # mangled, and near enough to be believed
        for source_id in range(100, 100 + 5 * 600):
            scene.rest.newest = source_id
            scene.stream(source_id)
            await asyncio.sleep(0.2)
        assert 600 / POLL_DELAY_MAX_S * 0.9 < len(scene.rest.asked) < 600 / POLL_DELAY_MAX_S + 10
        scene.rest.newest += 50
        await scene.reaches(scene.rest.newest + 1, within_s=POLL_DELAY_MAX_S + 1)
        asked = len(scene.rest.asked)
        await asyncio.sleep(1)
        assert len(scene.rest.asked) > asked + 1, "what REST brought, it may bring more of"

    scene.play(story())


def test_failures_are_not_the_end_of_catching_up() -> None:
    scene = Scene()
    scene.rest.newest, scene.rest.failures = 3_499, 2

    async def story() -> None:
        scene.healer.look()
        await scene.reaches(3_500)

    scene.play(story())
    assert scene.ids == list(range(100, 3_500))
    assert scene.rest.asked[:3] == [100, 100, 100]


def test_full_pages_are_followed_by_several_at_once_and_placed_in_order() -> None:
    scene = Scene()
    scene.rest.newest = 20_550

    async def story() -> None:
        scene.healer.look()
        await scene.reaches(20_551)
        await until(lambda: scene.healer.opened_s is None)

    scene.play(story())
    assert scene.ids == list(range(100, 20_551))
    assert scene.rest.most_at_once == PAGES_AT_ONCE_MAX
    assert scene.rest.asked[:5] == [100, 1_100, 2_100, 3_100, 4_100]
    assert scene.tape.duplicates == 0


def test_ids_that_one_of_several_pages_lacks_are_waited_for_and_nothing_is_lost() -> None:
    scene = Scene(heal_wait_max_s=30)
    scene.rest.newest, scene.rest.lost = 9_000, {2_500, 2_501}

    async def story() -> None:
        scene.healer.look()
        await scene.reaches(2_500)
        await asyncio.sleep(20)
        assert scene.gaps == []
        scene.rest.lost = {2_501}
        await scene.reaches(9_001)

    scene.play(story())
    assert scene.gaps == [(GapClass.MISSING, IdRange(2_501, 2_501))]
    assert scene.ids == [*range(100, 2_501), *range(2_502, 9_001)]


def test_rows_nobody_can_use_become_gaps_with_their_class() -> None:
    scene = Scene()
    scene.rest.newest = 104
    scene.rest.bad = {101: "invalid_field", 103: "void"}

    async def story() -> None:
        scene.healer.look()
        await scene.reaches(105)

    scene.play(story())
    assert scene.ids == [100, 102, 104]
    assert scene.gaps == [
        (GapClass.REJECTED, IdRange(101, 101)),
        (GapClass.VOID, IdRange(103, 103)),
    ]
    assert [row.source_id for row in scene.rejected_rows] == [101, 103]


def test_ids_rest_skips_are_declared_missing_only_when_the_wait_is_over() -> None:
    scene = Scene()
    scene.rest.newest, scene.rest.lost = 105, {101, 102}

    async def story() -> None:
        scene.stream(105)
        await asyncio.sleep(59)
        assert scene.gaps == []
        assert scene.healer.opened_s is not None
        await scene.reaches(106, within_s=1 + 2 * POLL_DELAY_MAX_S)

    scene.play(story())
    assert scene.ids == [100, 103, 104, 105]
    assert scene.gaps == [(GapClass.MISSING, IdRange(101, 102))]


def test_a_deaf_writer_declares_nothing() -> None:
    scene = Scene()
    scene.rest.newest, scene.rest.lost = 105, {101, 102}

    async def story() -> None:
        scene.stream(105)
        scene.hears = False
        await asyncio.sleep(3600)
        assert scene.gaps == []
        scene.hears = True
        await scene.reaches(106, within_s=2 * POLL_DELAY_MAX_S)

    scene.play(story())
    assert scene.gaps == [(GapClass.MISSING, IdRange(101, 102))]


def test_ids_that_come_late_but_in_time_are_no_gap_and_each_has_its_own_wait() -> None:
    scene = Scene()
    scene.rest.newest, scene.rest.lost = 105, {101, 102}

    async def story() -> None:
        scene.stream(105)
        await asyncio.sleep(40)
        scene.stream(101)
        assert scene.tape.next_id == 102
        await asyncio.sleep(40)
        assert scene.gaps == []
        scene.rest.lost = set()
        await scene.reaches(106)

    scene.play(story())
    assert scene.ids == list(range(100, 106))
    assert scene.gaps == []


def test_ids_rest_skips_are_declared_though_a_full_page_follows_them() -> None:
    scene = Scene(heal_wait_max_s=0)
    scene.rest.newest, scene.rest.lost = 5_000, {101, 102}

    async def story() -> None:
        scene.healer.look()
        await scene.reaches(5_001)

    scene.play(story())
    assert scene.gaps == [(GapClass.MISSING, IdRange(101, 102))]


def test_an_absurd_id_far_ahead_does_not_silence_the_symbol() -> None:
    scene = Scene()
    scene.rest.newest = 99
    absurd = 99 + FAR_AHEAD + 1

    async def story() -> None:
        scene.stream(absurd)
        await until(lambda: scene.rejected_trades != [])
        scene.stream(100, 101)
        await scene.reaches(102)

    scene.play(story())
    assert [one.source_id for one in scene.rejected_trades] == [absurd]
    assert scene.ids == [100, 101]
    assert scene.tape.held == 0


def test_nothing_is_fetched_while_the_ring_is_full() -> None:
    scene = Scene()
    scene.rest.newest, scene.room = 101, False

    async def story() -> None:
        scene.healer.look()
        await asyncio.sleep(60)
        assert scene.rest.asked == []
        scene.room = True
        await scene.reaches(102)

    scene.play(story())


def test_what_was_spilled_goes_on_the_tape_before_rest_is_asked_for_it() -> None:
    scene = Scene()
    scene.rest.newest = 101

    async def story() -> None:
        scene.stream(102)
        scene.spilled = [103, 104]
        await scene.reaches(105)

    scene.play(story())
    assert scene.ids == [100, 101, 102, 103, 104]
    assert scene.rest.asked[0] == 100
    assert set(scene.rest.asked[1:]) <= {105}


# The other leg.


def test_a_hole_that_the_other_leg_fills_costs_no_rest() -> None:
    scene = Scene(leg_wait_s=LEG_WAIT_S)

    async def story() -> None:
        for first_id in (100, 200, 300):
            scene.written += scene.tape.go_to(first_id, first_id - 1)
            scene.stream(first_id + 1)
            await asyncio.sleep(LEG_WAIT_S * 0.9)
            scene.stream(first_id)
            await asyncio.sleep(5)

    scene.play(story())
    assert scene.rest.asked == []
    assert scene.ids == [100, 101, 200, 201, 300, 301]


def test_a_hole_that_no_leg_fills_is_asked_for_after_their_time() -> None:
    scene = Scene(leg_wait_s=LEG_WAIT_S)
    scene.rest.newest = 100

    async def story() -> None:
        scene.stream(101)
        await asyncio.sleep(LEG_WAIT_S * 0.9)
        assert scene.rest.asked == []
        await scene.reaches(102, within_s=LEG_WAIT_S)

    scene.play(story())


def test_a_look_waits_for_no_leg() -> None:
    scene = Scene(leg_wait_s=LEG_WAIT_S)
    scene.rest.newest = 100

    async def story() -> None:
        scene.healer.look()
        await scene.reaches(101, within_s=LEG_WAIT_S * 0.5)

    scene.play(story())


def test_a_look_that_comes_while_another_is_under_way_is_not_lost() -> None:
    scene = Scene()
    scene.rest.newest, scene.rest.way_s = 100, 1.0

    async def story() -> None:
        scene.healer.look()
        await asyncio.sleep(0.5)
        scene.healer.look()
        await scene.reaches(101)
        scene.rest.newest = 103
        await scene.reaches(104, within_s=5)

    scene.play(story())


# Where a tape begins.


def test_a_tape_without_position_begins_after_what_rest_had_before_we_listened() -> None:
    scene = Scene(next_id=None)
    scene.healer.newest_id, scene.rest.newest = 41, 44

    async def story() -> None:
        scene.stream(44, 45)
        scene.healer.look()
        await scene.reaches(46)

    scene.play(story())
    assert scene.started_at == [42]
    assert scene.ids == [42, 43, 44, 45]
    assert [one.previous_id for one in scene.written if isinstance(one, Placed)][:2] == [None, 42]


def test_a_symbol_that_never_traded_begins_with_its_first_id_by_the_exchanges_word() -> None:
    scene = Scene(next_id=None)

    async def story() -> None:
        scene.healer.look()
        await asyncio.sleep(10 * BEGIN_DELAY_S)
        assert len(scene.rest.asked) <= 11, "a symbol that does not trade costs hardly anything"
        assert scene.started_at == [0], "should we die, the next one begins with its first trade"
        scene.rest.first, scene.rest.newest = 7, 6
        scene.stream(8)  # the stream is ahead of REST, and lost 7
        await asyncio.sleep(3)
        assert (scene.started_at, scene.ids) == ([0], [])
        scene.rest.newest = 7
        await scene.reaches(9, within_s=3)

    scene.play(story())
    assert scene.started_at == [0, 7]
    assert scene.ids == [7, 8]


def test_a_symbol_that_begins_with_a_row_nobody_can_use_begins_there() -> None:
    scene = Scene(next_id=None)
    scene.rest.newest, scene.rest.bad = 1, {0: "void"}

    async def story() -> None:
        scene.healer.look()
        await scene.reaches(2)

    scene.play(story())
    assert scene.started_at == [0, 0]
    assert (scene.gaps, scene.ids) == ([(GapClass.VOID, IdRange(0, 0))], [1])


def test_a_symbol_dropped_before_its_healer_ran_is_never_healed() -> None:
    scene = Scene()

    async def story() -> None:
        scene.stream(104)
        healing = asyncio.ensure_future(scene.healer.run())
        scene.healer.stop()
        await asyncio.sleep(60)
        assert healing.done()
        assert scene.rest.asked == []

    virtually(story())


def test_a_symbol_dropped_is_healed_no_more() -> None:
    scene = Scene()

    async def story() -> None:
        scene.stream(104)
        await until(lambda: scene.rest.asked != [])
        scene.healer.stop()
        await asyncio.sleep(1)
        asked = len(scene.rest.asked)
        scene.healer.look()
        await asyncio.sleep(60)
        assert len(scene.rest.asked) == asked

    async def both() -> None:
        healing = asyncio.ensure_future(scene.healer.run())
        await story()
        assert healing.cancelled()

    virtually(both())
