"""The lease and the fence on a real broker: who may try, who can, and what a successor sees."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from threading import Event, Thread
from uuid import uuid4

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient

from integration.harness import wait_for
from k2.kafka.connection import KafkaConnection
from k2.kafka.lease import Lease, LeaseChange, group_id, other_members
from k2.kafka.position import POSITION_KEY, ShardPosition, SymbolPosition, encode_position
from k2.kafka.positions import read_shard
from k2.kafka.shard_reader import EndAsker, ShardFollower
from k2.kafka.topics import TopicNames, create_topics
from k2.kafka.transaction import FencedError, Record, ShardProducer, transactional_id
from k2.local.background import BackgroundStack

pytestmark = pytest.mark.integration

SESSION_S = 3.0
HOLDER = """
import sys
from k2.kafka.connection import KafkaConnection
from k2.kafka.lease import Lease
from k2.kafka.topics import TopicNames

lease = Lease(KafkaConnection(sys.argv[1]), names=TopicNames.of(sys.argv[2]), client_id="holder")
while True:
    if lease.poll(1.0).gained:
        print("gained", flush=True)
"""


class Member:
    """A member of the group that is polled on a thread of its own."""

    def __init__(self, bootstrap: str, names: TopicNames, client_id: str) -> None:
        self.changes: list[tuple[float, LeaseChange]] = []
        self.lease = Lease(KafkaConnection(bootstrap), names=names, client_id=client_id)
        self._pause = Event()
        self._end = Event()
        self._thread = Thread(target=self._run)
        self._thread.start()

    def first(self, told: Callable[[LeaseChange], frozenset[int]]) -> float:
        """Wait for a change of this kind; return when it was told."""
        return wait_for(
            lambda: next((at_s for at_s, change in self.changes if told(change)), None),
            what="the lease to change",
            deadline_s=20.0,
        )

    def hang(self) -> None:
        """Poll no more."""
        self._pause.set()

    def go_on(self) -> None:
        """Poll again."""
        self._pause.clear()

    def leave(self) -> None:
        """Leave the group."""
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._end.is_set():
            if self._pause.is_set():
                self._end.wait(0.01)
                continue
            change = self.lease.poll(0.1)
            if any(change):
                self.changes.append((time.monotonic(), change))
        self.lease.leave()


def gained(change: LeaseChange) -> frozenset[int]:
    return change.gained


def lost(change: LeaseChange) -> frozenset[int]:
    return change.lost


Join = Callable[[str], Member]
Told = Callable[[str, object], None]
"""pytest's record_property: the times are in the run's report."""


@pytest.fixture
def bootstrap(stack: BackgroundStack) -> str:
    return stack.address.bootstrap


@pytest.fixture
def admin(bootstrap: str) -> AdminClient:
    return AdminClient({"bootstrap.servers": bootstrap})


@pytest.fixture
def names(admin: AdminClient) -> TopicNames:
    names = TopicNames.of(f"t{uuid4().hex[:8]}")
    create_topics(admin, names, shards=1)
    return names


@pytest.fixture
def join(bootstrap: str, names: TopicNames, admin: AdminClient) -> Iterator[Join]:
    """Return what makes members, each known to the group when it is returned."""
    members: list[Member] = []

    def one(client_id: str) -> Member:
        present = other_members(admin, group_id(names.trades), client_id="nobody")
        members.append(Member(bootstrap, names, client_id))
        wait_for(
            lambda: other_members(admin, group_id(names.trades), client_id="nobody") > present,
            what=f"{client_id} to be in the group",
        )
        return members[-1]

    yield one
    for member in members:
        member.leave()


def test_a_newcomer_leaves_the_holder_alone_and_gets_the_shard_when_it_leaves(
    join: Join, record_property: Told
) -> None:
    holder = join("a")
    holder.first(gained)
    newcomer = join("b")
    assert other_is_settled(newcomer)
    assert [change.gained for _, change in holder.changes] == [{0}]
    assert newcomer.changes == []
    left_at_s = time.monotonic()
    holder.leave()
    took_s = newcomer.first(gained) - left_at_s
    record_property("planned_hand_over_s", took_s)
    assert took_s < 1.0


def other_is_settled(member: Member) -> bool:
    """Wait until the member has taken part for longer than a rebalance needs."""
    begin_s = time.monotonic()
    return wait_for(
        lambda: bool(member.changes) or time.monotonic() - begin_s > 2 * SESSION_S / 3,
        what="the group to settle",
    )


def test_a_holder_that_is_killed_is_succeeded_within_its_session(
    join: Join, bootstrap: str, names: TopicNames, record_property: Told
) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, bootstrap, names.trades.removesuffix(".binance")],
        stdout=subprocess.PIPE,
        env=os.environ,
    )
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == b"gained\n"
        standby = join("b")
        killed_at_s = time.monotonic()
    finally:
        holder.kill()
        holder.wait(10)
        holder.stdout.close()
    took_s = standby.first(gained) - killed_at_s
    record_property("killed_take_over_s", took_s)
    assert took_s < SESSION_S + 1


def test_a_holder_that_hangs_loses_the_shard_and_hears_of_it(
    join: Join, record_property: Told
) -> None:
    holder = join("a")
    holder.first(gained)
    standby = join("b")
    hung_at_s = time.monotonic()
    holder.hang()
    took_s = standby.first(gained) - hung_at_s
    record_property("hung_take_over_s", took_s)
    assert took_s < SESSION_S + 1
    holder.go_on()
    holder.first(lost)
    assert holder.lease.held == frozenset()


def test_a_broker_with_a_higher_minimum_gets_the_session_it_takes(
    bootstrap: str, names: TopicNames
) -> None:
    lease = Lease(KafkaConnection(bootstrap), names=names, client_id="a", session_timeout_s=0.5)
    try:
        assert wait_for(lambda: lease.poll(1.0).gained, what="the lease") == {0}
        assert lease.session_timeout_s == 6.0
    finally:
        lease.leave()


def position(next_id: int) -> ShardPosition:
    return ShardPosition({"X": SymbolPosition(next_id, next_id - 1, 0)})


def positions_record(names: TopicNames, next_id: int) -> list[Record]:
    return [Record(names.positions, POSITION_KEY, encode_position(position(next_id)))]


@pytest.fixture
def writers(bootstrap: str, names: TopicNames) -> Callable[[], ShardProducer]:
    return lambda: ShardProducer(
        kafka=KafkaConnection(bootstrap),
        trades_topic=names.trades,
        shard=0,
        keep_trying=lambda: True,
    )


@pytest.fixture
def follower(bootstrap: str, names: TopicNames) -> Iterator[ShardFollower]:
    follower = ShardFollower(KafkaConnection(bootstrap), positions_topic=names.positions, shard=0)
    yield follower
    follower.close()


@pytest.fixture
def ends(bootstrap: str) -> Iterator[EndAsker]:
    ends = EndAsker(KafkaConnection(bootstrap))
    yield ends
    ends.close()


def follow_to(follower: ShardFollower, end: int) -> None:
    def reached() -> bool:
        follower.follow()
        return follower.next_offset >= end

    wait_for(reached, what=f"the follower to reach {end}", deadline_s=10.0)


def test_a_successor_sees_what_its_predecessor_committed_and_fences_it(
    writers: Callable[[], ShardProducer],
    names: TopicNames,
    follower: ShardFollower,
    ends: EndAsker,
) -> None:
    first, second = writers(), writers()
    first.initialise()
    for next_id in range(1, 30):
        first.commit(positions_record(names, next_id))
    second.warm()
    first.commit(positions_record(names, 30))  # a warm producer fences nobody
    second.initialise()
    end = ends.high_watermark(names.positions, 0)
    follow_to(follower, end)
    assert follower.record.position == position(30)
    assert end == 60, "a marker follows each record"
    with pytest.raises(FencedError, match="another process became the writer of shard 0"):
        first.commit(positions_record(names, 99))
    second.commit(positions_record(names, 31))
    follow_to(follower, ends.high_watermark(names.positions, 0))
    assert follower.record.position == position(31)


def test_a_transaction_its_writer_died_in_is_decided_before_the_successor_reads(
    writers: Callable[[], ShardProducer],
    bootstrap: str,
    names: TopicNames,
    follower: ShardFollower,
    ends: EndAsker,
) -> None:
    first = writers()
    first.initialise()
    first.commit(positions_record(names, 5))
    dead = Producer(
        {
            "bootstrap.servers": bootstrap,
            "transactional.id": transactional_id(names.trades, 0),
        }
    )
    dead.init_transactions(10)
    dead.begin_transaction()
    dead.produce(names.positions, encode_position(position(99)), POSITION_KEY, partition=0)
    dead.flush(10)
    assert ends.high_watermark(names.positions, 0) == 3
    assert ends.last_stable_offset(names.positions, 0) == 2
    follow_to(follower, 2)
    assert follower.record.position == position(5)
    second = writers()
    second.warm()
    second.initialise()
    end = ends.high_watermark(names.positions, 0)
    assert end == 4
    follow_to(follower, end)
    assert follower.record.position == position(5), "what was aborted is not seen"
    second.commit(positions_record(names, 6))
    follow_to(follower, ends.high_watermark(names.positions, 0))
    assert follower.record.position == position(6)
    found = read_shard(KafkaConnection(bootstrap), positions_topic=names.positions, shard=0)
    assert found == follower.record
