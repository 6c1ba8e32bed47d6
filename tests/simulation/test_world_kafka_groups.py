import asyncio
import random
from collections.abc import Iterator, Mapping

import pytest
from confluent_kafka import TopicPartition

from simulation.world.blocking import run_blocking
from simulation.world.kafka_consumer import SimConsumer
from simulation.world.kafka_world import KafkaWorld
from simulation.world.node import Node, current_node
from simulation.world.virtual_time import VirtualTimeLoop, virtual_time

CONFIG: Mapping[str, str | int] = {
    "group.id": "lease",
    "session.timeout.ms": 3000,
    "heartbeat.interval.ms": 300,
    "max.poll.interval.ms": 3000,
}


class Holder:
    """A node that wants the lease, and notes what it is told."""

    def __init__(self, room: "Room", name: str, config: Mapping[str, str | int] = CONFIG) -> None:
        self.config = config
        self.room = room
        self.node = room.loop.node(name)
        self.told: list[tuple[str, list[int], float]] = []
        self.consumer: SimConsumer | None = None
        self.poll = True
        self.stop = False
        room.loop.spawn(self.node, self._run())

    async def _run(self) -> None:
        self.consumer = consumer = self.room.kafka.consumer(self.config)
        consumer.subscribe(
            ["lease"],
            on_assign=lambda c, p: self._note("assign", p),
            on_revoke=lambda c, p: self._note("revoke", p),
            on_lost=lambda c, p: self._note("lost", p),
        )
        while not self.stop:
            if self.poll:
                consumer.poll(0)
            await asyncio.sleep(0.05)
        consumer.close()

    def _note(self, what: str, partitions: list[TopicPartition]) -> None:
        assert current_node() is self.node
        numbers = [tp.partition for tp in partitions]
        self.told.append((what, numbers, self.room.loop.time()))

    @property
    def words(self) -> list[str]:
        return [what for what, _, _ in self.told]

    @property
    def holds(self) -> list[int]:
        assert self.consumer is not None
        return sorted(tp.partition for tp in self.consumer.assignment())


class Room:
    def __init__(self, loop: VirtualTimeLoop) -> None:
        self.loop = loop
        self.kafka = KafkaWorld(loop, random.Random(1))
        self.kafka.create_topic("lease", partitions=1)

    def pass_s(self, seconds: float) -> None:
        self.loop.run_until_complete(asyncio.sleep(seconds))

    def owner(self) -> Node | None:
        return self.kafka.groups.owners("lease").get(0)


@pytest.fixture
def room() -> Iterator[Room]:
    with virtual_time() as loop:
        yield Room(loop)


def two(room: Room, config: Mapping[str, str | int] = CONFIG) -> tuple[Holder, Holder]:
    a = Holder(room, "a", config)
    room.pass_s(1)
    b = Holder(room, "b", config)
    room.pass_s(5)
    assert (a.words, b.words) == (["assign"], [])
    return a, b


def test_a_newcomer_leaves_the_holder_alone(room: Room) -> None:
    a, b = two(room)
    room.pass_s(60)
    assert (a.holds, b.holds) == ([0], [])


def test_a_holder_that_closes_hands_over_at_once(room: Room) -> None:
    a, b = two(room)
    a.stop = True
    began_s = room.loop.time()
    room.pass_s(1)
    assert a.words == ["assign", "revoke"]
    assert b.words == ["assign"]
    assert b.told[0][2] - began_s < 0.4


def test_a_killed_holders_lease_expires_after_the_session_timeout(room: Room) -> None:
    a, b = two(room)
    room.loop.kill(a.node)
    began_s = room.loop.time()
    room.pass_s(10)
    assert b.words == ["assign"]
    assert 2.6 < b.told[0][2] - began_s < 3.3


def test_a_frozen_holder_loses_the_lease_and_hears_so_when_it_thaws(room: Room) -> None:
    a, b = two(room)
    room.loop.freeze(a.node)
    room.pass_s(10)
    assert (a.words, b.words) == (["assign"], ["assign"])
    room.loop.thaw(a.node)
    thawed_s = room.loop.time()
    room.pass_s(10)
    assert a.words == ["assign", "lost"]
    assert a.told[1][2] - thawed_s < 0.2
    assert (a.holds, b.holds) == ([], [0])


def test_a_short_freeze_costs_nothing(room: Room) -> None:
    a, b = two(room)
    room.loop.freeze(a.node)
    room.pass_s(2)
    room.loop.thaw(a.node)
    room.pass_s(10)
    assert (a.words, b.words) == (["assign"], [])


def test_two_short_freezes_are_not_one_long_one(room: Room) -> None:
    a, b = two(room)
    for _ in range(4):
        room.loop.freeze(a.node)
        room.pass_s(2)
        room.loop.thaw(a.node)
        room.pass_s(0.5)
    assert (a.words, b.words) == (["assign"], [])


def test_a_zombie_hears_of_its_loss_from_the_group_alone(room: Room) -> None:
    a, b = two(room, config={**CONFIG, "max.poll.interval.ms": 300_000})
    room.loop.freeze(a.node)
    room.pass_s(10)
    room.loop.thaw(a.node)
    room.pass_s(1)
    assert (a.words, b.words) == (["assign", "lost"], ["assign"])


def test_a_holder_that_does_not_poll_loses_the_lease_though_its_node_runs(room: Room) -> None:
    a, b = two(room)
    a.poll = False
    began_s = room.loop.time()
    room.pass_s(10)
    assert b.words == ["assign"]
    assert 2.9 < b.told[0][2] - began_s < 3.3
    a.poll = True
    room.pass_s(10)
    assert a.words == ["assign", "lost"]
    assert b.holds == [0]


def test_sessions_start_afresh_after_an_outage(room: Room) -> None:
    a, b = two(room)
    room.kafka.go_down()
    room.pass_s(1)
    room.loop.kill(a.node)
    room.pass_s(1)
    room.kafka.come_up()
    began_s = room.loop.time()
    room.pass_s(10)
    assert b.words == ["assign"]
    assert 2.6 < b.told[0][2] - began_s < 3.5


def test_an_outage_longer_than_the_session_costs_the_lease(room: Room) -> None:
    a, b = two(room)
    room.kafka.go_down()
    room.pass_s(5)
    assert a.words == ["assign", "lost"]
    room.kafka.come_up()
    room.pass_s(10)
    assert sorted(a.holds + b.holds) == [0]


def test_partitions_are_shared_evenly_without_taking_more_than_balance_demands(
    room: Room,
) -> None:
    room.kafka.create_topic("lease", partitions=5)
    holders = [Holder(room, "a")]
    for name in ("b", "c"):
        room.pass_s(5)
        holders.append(Holder(room, name))
    room.pass_s(5)
    assert sorted(len(holder.holds) for holder in holders) == [1, 2, 2]
    assert sorted(n for holder in holders for n in holder.holds) == list(range(5))
    assert [w for w in holders[0].words if w == "lost"] == []


@pytest.mark.parametrize("after_s", [0.0, 0.003, 0.02])
def test_a_member_that_closes_while_it_joins_is_in_nobodys_way(room: Room, after_s: float) -> None:
    a = Holder(room, "a")
    room.pass_s(0.001)
    assert a.consumer is not None
    room.loop.call_at(room.loop.time() + after_s, a.consumer.close, context=a.node.context)
    a.poll = False
    room.pass_s(0.1)
    b = Holder(room, "b")
    room.pass_s(5)
    assert b.holds == [0]


def test_a_poll_that_waits_returns_once_it_has_told_and_keeps_the_lease(room: Room) -> None:
    told: list[float] = []

    def work() -> None:
        consumer = room.kafka.consumer(CONFIG)
        consumer.subscribe(["lease"], on_assign=lambda *_: told.append(room.loop.time()))
        assert consumer.poll(60) is None
        assert room.loop.time() == told[0] < 1
        assert consumer.poll(60) is None
        assert room.loop.time() == told[0] + 60

    node = room.loop.node("a")
    room.loop.run_until_complete(room.loop.spawn(node, run_blocking(work)))
    assert room.owner() is node


def test_a_leave_the_broker_did_not_hear_ends_with_the_session(room: Room) -> None:
    a, b = two(room)
    room.kafka.go_down()
    room.pass_s(0.5)
    a.stop = True
    room.pass_s(1)
    room.kafka.come_up()
    began_s = room.loop.time()
    room.pass_s(10)
    assert b.words == ["assign"]
    assert 2.6 < b.told[0][2] - began_s < 3.5
