import asyncio
from pathlib import Path
from typing import Any

import msgspec

from k2.ingestion.duties import Duties
from k2.ingestion.ports import Ports
from k2.ingestion.quiet import ProbePace
from k2.ingestion.rejects import Rejects
from k2.kafka.clients import LIBRARY
from k2.kafka.dead_letters import DeadLetters
from k2.kafka.position import NEVER_TRADED, OpenGap
from k2.market import IdRange, StreamKind
from k2.tape.silence import Silence
from unit.ingestion.shard_world import (
    FakeRest,
    ShardWorld,
    beside,
    until,
    virtual_host,
    virtually,
)
from unit.trades import trade


class Scene:
    """A shard that writes, with the duties of its writer."""

    def __init__(self, folder: Path, **given: Any) -> None:
        self.world = ShardWorld(**given)
        self.rest = FakeRest()
        host = virtual_host()
        ports = Ports(
            host=host,
            connect=_nobody,
            may_connect=_nobody,
            rest=self.rest,
            clients=LIBRARY,
            worker=_nobody,
        )
        self.duties = Duties(
            ports,
            Rejects(DeadLetters(folder, topic="t", connection_id="c")),
            legs=2,
            heal_wait_max_s=60.0,
            hears=lambda: True,
            probe_pace=ProbePace(StreamKind.AGG_TRADE, share=0.5, host=host),
        )
        self.world.shard.on_hole = self.duties.hole
        self.world.shard.on_loss = self.duties.look

    def miss(self, source_id: int) -> None:
        """Have the writer before us look for an id that it declared."""
        world = self.world
        gap = OpenGap("BTCUSDT", IdRange(source_id, source_id), virtual_host().wall_ns() // 1000)
        position = msgspec.structs.replace(world.shard.told.position, open_gaps=(gap,))
        world.log.say(position)
        world.follow()

    async def serve(self, story: Any, *, heard_all: bool = False) -> None:
        shard = self.world.shard
        await shard.take_over()
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(duty)
                for duty in self.duties.of(
                    shard,
                    heard_all=heard_all,
                    silences={"BTCUSDT": Silence(0.0)},
                    found=lambda *_: None,
                )
            ]
            await beside(shard.write(asyncio.Event()), story)
            for task in tasks:
                task.cancel()


def _nobody(*_: Any) -> Any:
    raise AssertionError


def test_whoever_did_not_hear_everything_asks_rest_about_every_symbol(tmp_path: Path) -> None:
    async def tell() -> None:
        scene = Scene(tmp_path)
        scene.rest.newest = 9
        await scene.serve(until(lambda: scene.world.ids == [5, 6, 7, 8, 9]))

    virtually(tell())


def test_whoever_heard_everything_asks_about_visible_holes_only(tmp_path: Path) -> None:
    async def tell() -> None:
        for arrived, asked in ((6, []), (7, [6])):
            scene = Scene(tmp_path)
            scene.rest.newest = 6
            scene.world.stream(5, 5)
            scene.world.stream(arrived, arrived)
            await scene.serve(
                until(lambda scene=scene, last=arrived: scene.world.ids[-1:] == [last]),  # type: ignore[misc]
                heard_all=True,
            )
            assert scene.rest.asked[:1] == asked

    virtually(tell())


def test_a_tape_that_has_not_begun_is_begun_whatever_was_heard(tmp_path: Path) -> None:
    async def tell() -> None:
        scene = Scene(tmp_path, next_id=None)
        scene.rest.newest = 41
        scene.duties.newest_ids["BTCUSDT"] = 38

        async def story() -> None:
            await until(lambda: scene.world.ids == [39, 40, 41])
            first = scene.world.log.transactions[0]
            position = msgspec.json.decode(first[-1].value or b"")
            assert position["symbols"]["BTCUSDT"]["next_id"] >= 39

        await scene.serve(story(), heard_all=True)

    virtually(tell())


def test_the_start_of_a_tape_is_recorded_before_its_first_trade(tmp_path: Path) -> None:
    async def tell() -> None:
        scene = Scene(tmp_path, next_id=None)
        scene.duties.newest_ids["BTCUSDT"] = 38

        async def story() -> None:
            await until(lambda: scene.world.log.transactions != [])
            assert scene.world.stands_at == (39, None, None)
            assert scene.world.ids == []

        await scene.serve(story())

    virtually(tell())


def test_a_successor_begins_a_symbol_nobody_had_seen_trade_with_its_very_first_trade(
    tmp_path: Path,
) -> None:
    async def tell() -> None:
        # The writer before us found that it had never traded, and died before its first trades
        # were written; when we started, REST showed some of them.
        scene = Scene(tmp_path, next_id=0)
        assert scene.world.shard.told.position.symbols["BTCUSDT"] == NEVER_TRADED
        scene.rest.first, scene.rest.newest = 7, 9
        scene.duties.newest_ids["BTCUSDT"] = 9
        scene.world.stream(10, 10)

        await scene.serve(until(lambda: scene.world.ids == [7, 8, 9, 10]), heard_all=True)

    virtually(tell())


def test_a_standbys_holes_cost_no_rest(tmp_path: Path) -> None:
    async def tell() -> None:
        scene = Scene(tmp_path)
        scene.rest.newest = 20
        await scene.serve(until(lambda: scene.world.ids[-1:] == [20]))
        await scene.world.shard.step_down()
        asked = len(scene.rest.asked)
        scene.world.stream(30, 35)
        scene.duties.look("BTCUSDT")
        await asyncio.sleep(60)
        assert len(scene.rest.asked) == asked
        assert scene.duties.healing == {}

    virtually(tell())


def test_what_is_being_healed_is_told_with_its_beginning(tmp_path: Path) -> None:
    async def tell() -> None:
        scene = Scene(tmp_path)
        scene.rest.newest = 5

        async def story() -> None:
            await until(lambda: scene.world.ids == [5])
            await asyncio.sleep(10)
            began_s = virtual_host().monotonic_s()
            scene.world.stream(9, 9)
            await asyncio.sleep(10)
            (since_s,) = scene.duties.healing.values()
            assert 0 < since_s - began_s < 1
            scene.rest.newest = 8
            await until(lambda: scene.world.ids == [5, 6, 7, 8, 9])
            await until(lambda: scene.duties.healing == {})
            scene.duties.drop("BTCUSDT")
            scene.duties.look("BTCUSDT")

        await scene.serve(story())

    virtually(tell())


def test_a_late_trade_between_take_over_and_duties_is_repaired_by_rest(tmp_path: Path) -> None:
    async def tell() -> None:
        scene = Scene(tmp_path)
        world = scene.world
        scene.miss(2)
        scene.rest.first, scene.rest.newest = 1, 4
        await world.shard.take_over()
        scene.duties.late(trade(2), world.shard)
        assert world.repaired == []
        await scene.serve(until(lambda: world.repaired == [2]))

    virtually(tell())


def test_a_late_trade_is_repaired_by_the_writer_alone(tmp_path: Path) -> None:
    async def tell() -> None:
        scene = Scene(tmp_path)
        world = scene.world
        scene.miss(2)
        scene.duties.late(trade(2), world.shard)
        assert world.log.records == []

        async def story() -> None:
            scene.duties.late(trade(2), world.shard)
            await until(lambda: world.repaired == [2])

        await scene.serve(story())

    virtually(tell())
