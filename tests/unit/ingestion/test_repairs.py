import asyncio
import itertools
from collections.abc import Coroutine
from typing import Any

import msgspec

from k2.ingestion.repairs import LOOK_EVERY_MAX_S, LOOK_EVERY_S, Repairs, ranges, repair_records
from k2.kafka.gap_records import GapEvent, decode_gap
from k2.kafka.position import OpenGap
from k2.market import BadRow, IdRange
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
    """A writer at id 100 with open gaps, and what looks for them."""

    def __init__(self, *gaps: tuple[int, int]) -> None:
        self.world = ShardWorld(next_id=100)
        self.shard = self.world.shard
        position = self.world.log.committed.position
        assert position is not None
        now_us = virtual_host().wall_ns() // 1000
        open_gaps = tuple(OpenGap("BTCUSDT", IdRange(*ids), now_us) for ids in gaps)
        self.world.log.say(msgspec.structs.replace(position, open_gaps=open_gaps))
        self.rest = FakeRest()
        self.rest.newest = 99
        self.rest.lost = {i for first, last in gaps for i in range(first, last + 1)}
        self.rejected: list[BadRow] = []
        self.repairs = Repairs(
            self.shard, self.rest, reject_row=self.rejected.append, host=virtual_host()
        )

    async def play(self, story: Coroutine[Any, Any, None]) -> None:
        await self.shard.take_over()
        await beside(self.shard.write(asyncio.Event()), beside(self.repairs.run(), story))

    @property
    def open_gaps(self) -> list[tuple[int, int]]:
        gaps = self.shard.told.position.open_gaps
        return [(gap.ids.first_id, gap.ids.last_id) for gap in gaps]

    @property
    def told(self) -> list[IdRange]:
        """The ids that ``.gaps`` says were repaired."""
        records = [decode_gap(r.value) for r in self.world.log.records if r.topic == NAMES.gaps]
        assert all(record.event is GapEvent.REPAIRED for record in records)
        return [record.ids for record in records]


def test_ids_that_rest_has_after_all_are_repaired_in_one_transaction() -> None:
    async def tell() -> None:
        scene = Scene((10, 14), (20, 20))

        async def story() -> None:
            await asyncio.sleep(LOOK_EVERY_S * 1.5)
            assert scene.world.log.records == []
            scene.rest.lost = {12, 20}
            await until(lambda: scene.world.repaired != [])
            assert scene.world.repaired == [10, 11, 13, 14]
            assert scene.told == [IdRange(10, 11), IdRange(13, 14)]
            assert scene.open_gaps == [(12, 12), (20, 20)]
            (transaction,) = scene.world.log.transactions
            assert transaction[-1].topic == NAMES.positions
            scene.rest.lost = set()
            await until(lambda: scene.open_gaps == [])
            assert scene.world.repaired == [10, 11, 13, 14, 12, 20]
            assert scene.world.ids == []

        await scene.play(story())

    virtually(tell())


def test_the_id_before_is_told_only_where_it_is_in_the_same_run() -> None:
    async def tell() -> None:
        world = ShardWorld()
        records = repair_records(world.shard, [trade(i) for i in (10, 11, 13)])
        assert [world.text(record) for record in records] == ["None>10", "10>11", "None>13"]

    virtually(tell())


def test_a_gap_is_looked_for_less_and_less_often_but_at_least_hourly() -> None:
    async def tell() -> None:
        scene = Scene((10, 10))
        asked_s: list[float] = []

        async def story() -> None:
            loop, asked = asyncio.get_running_loop(), 0
            while loop.time() < 24 * 3600:
                await asyncio.sleep(1)
                if len(scene.rest.asked) > asked:
                    asked = len(scene.rest.asked)
                    asked_s.append(loop.time())

        await scene.play(story())
        between = [after - before for before, after in itertools.pairwise(asked_s)]
        assert all(LOOK_EVERY_S - 2 <= gap <= LOOK_EVERY_MAX_S + LOOK_EVERY_S for gap in between)
        assert between[0] < 2 * LOOK_EVERY_S
        assert between[-1] > LOOK_EVERY_MAX_S - LOOK_EVERY_S
        assert len(asked_s) < 60

    virtually(tell())


def test_a_rest_that_is_away_is_asked_again_later() -> None:
    async def tell() -> None:
        scene = Scene((10, 10))
        scene.rest.lost, scene.rest.failures = set(), 2

        async def story() -> None:
            await until(lambda: scene.open_gaps == [])
            assert len(scene.rest.asked) == 3

        await scene.play(story())

    virtually(tell())


def test_a_row_nobody_can_use_stays_declared_and_is_looked_for_no_more() -> None:
    async def tell() -> None:
        scene = Scene((10, 11))
        scene.rest.lost, scene.rest.bad = set(), {11: "invalid_field"}

        async def story() -> None:
            await until(lambda: scene.open_gaps == [])
            assert scene.world.repaired == [10]
            assert scene.told == [IdRange(10, 10)]
            assert [row.source_id for row in scene.rejected] == [11]
            await asyncio.sleep(2 * LOOK_EVERY_MAX_S)
            assert len(scene.rest.asked) == 1

        await scene.play(story())

    virtually(tell())


def test_a_late_trade_of_a_leg_is_repaired_once_however_many_legs_bring_it() -> None:
    async def tell() -> None:
        scene = Scene((10, 12))

        async def story() -> None:
            for source_id in (11, 11, 50, 200, 9, 11):
                scene.repairs.late(trade(source_id))
            scene.repairs.late(trade(12, "ETHUSDT"))
            await until(lambda: scene.open_gaps == [(10, 10), (12, 12)])
            scene.repairs.late(trade(11))
            await asyncio.sleep(1)
            assert scene.world.repaired == [11]
            assert scene.told == [IdRange(11, 11)]

        await scene.play(story())

    virtually(tell())


def test_a_trade_that_comes_late_while_rest_brings_it_too_is_written_once() -> None:
    async def tell() -> None:
        scene = Scene((10, 12))
        scene.rest.lost = set()
        scene.world.log.outcomes = ["aborted"] * 3  # both wait for Kafka

        async def story() -> None:
            await until(lambda: scene.rest.asked != [])
            scene.repairs.late(trade(11))
            await until(lambda: scene.open_gaps == [])
            assert sorted(scene.world.repaired) == [10, 11, 12]

        await scene.play(story())

    virtually(tell())


def test_gaps_of_a_symbol_that_left_stay_open_until_it_is_recorded_again() -> None:
    async def tell() -> None:
        scene = Scene((10, 11))
        scene.rest.lost = set()

        async def story() -> None:
            scene.shard.drop("BTCUSDT")
            await asyncio.sleep(2 * LOOK_EVERY_MAX_S)
            assert (scene.rest.asked, scene.open_gaps) == ([], [(10, 11)])
            scene.shard.carry("BTCUSDT")
            await until(lambda: scene.open_gaps == [])

        await scene.play(story())

    virtually(tell())


def test_runs_of_ids() -> None:
    assert ranges([]) == []
    assert ranges([3, 1, 2, 7, 9, 10]) == [IdRange(1, 3), IdRange(7, 7), IdRange(9, 10)]
