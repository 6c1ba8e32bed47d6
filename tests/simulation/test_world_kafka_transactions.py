import asyncio
import random
from collections.abc import Callable, Iterator
from typing import TypeVar

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from simulation.world.blocking import run_blocking, wait_s
from simulation.world.kafka_faults import CommitFate, KafkaFaults, Stage
from simulation.world.kafka_log import Outcome, Transaction
from simulation.world.kafka_producer import SimProducer
from simulation.world.kafka_world import KafkaWorld
from simulation.world.node import Node
from simulation.world.virtual_time import VirtualTimeLoop, virtual_time

T = TypeVar("T")


class Fates(KafkaFaults):
    def __init__(self) -> None:
        self.next: list[CommitFate] = []
        self.kill_at: Stage | None = None
        self.kill: Callable[[Node], None] = lambda _: None

    def commit_fate(self, node: Node) -> CommitFate:
        return self.next.pop(0) if self.next else CommitFate.FINE

    def reached(self, node: Node, stage: Stage) -> None:
        if stage is self.kill_at:
            self.kill(node)


class Room:
    """A Kafka with one topic of two partitions, and nodes to use it from."""

    def __init__(self, loop: VirtualTimeLoop) -> None:
        self.loop = loop
        self.fates = Fates()
        self.fates.kill = loop.kill
        self.kafka = KafkaWorld(loop, random.Random(1), faults=self.fates)
        self.kafka.create_topic("t", partitions=2)
        self.a = loop.node("a")
        self.b = loop.node("b")

    def run(self, node: Node, call: Callable[[], T]) -> T:
        return self.loop.run_until_complete(self.loop.spawn(node, run_blocking(call)))

    def begin(self, node: Node, call: Callable[[], T]) -> "asyncio.Task[T]":
        return self.loop.spawn(node, run_blocking(call))

    def pass_s(self, seconds: float) -> None:
        self.loop.run_until_complete(asyncio.sleep(seconds))

    def producer(self, name: str = "x") -> SimProducer:
        config = {"transactional.id": name, "transaction.timeout.ms": 60_000}
        producer = self.kafka.producer(config)
        producer.list_topics(timeout=5)
        producer.init_transactions(30)
        return producer

    def seen(self, partition: int = 0, *, committed: bool = True) -> list[bytes | None]:
        log = self.kafka.logs["t", partition]
        entries, _ = log.read(0, limit=10**6, committed=committed)
        return [entry.record.value for entry in entries if entry.record is not None]


@pytest.fixture
def room() -> Iterator[Room]:
    with virtual_time() as loop:
        yield Room(loop)


def commit(producer: SimProducer, *values: bytes, timeout: float = 5) -> None:
    producer.begin_transaction()
    for value in values:
        producer.produce("t", value=value, key=b"k", partition=0)
    producer.commit_transaction(timeout)


def error_of(call: Callable[[], object]) -> KafkaError:
    with pytest.raises(KafkaException) as caught:
        call()
    error: KafkaError = caught.value.args[0]
    return error


def test_committed_records_are_seen_once_and_offsets_count_the_marker(room: Room) -> None:
    def work() -> None:
        producer = room.producer()
        commit(producer, b"1", b"2")
        commit(producer, b"3")
        wait_s(0.1)

    room.run(room.a, work)
    assert room.seen() == [b"1", b"2", b"3"]
    assert room.kafka.logs["t", 0].high_watermark == 5


def test_an_open_transaction_holds_the_stable_offset_back_not_the_watermark(room: Room) -> None:
    def work() -> None:
        commit(room.producer("other"), b"0")
        wait_s(0.1)
        producer = room.producer()
        producer.begin_transaction()
        producer.produce("t", value=b"1", partition=0)
        producer.flush(5)
        commit(room.producer("other"), b"2")
        wait_s(0.1)
        ends = {}
        for level in ("read_committed", "read_uncommitted"):
            consumer = room.kafka.consumer({"isolation.level": level})
            ends[level] = consumer.get_watermark_offsets(TopicPartition("t", 0), timeout=5)
            consumer.close()
        assert ends == {"read_committed": (0, 2), "read_uncommitted": (0, 5)}
        assert room.seen() == [b"0"]
        assert room.seen(committed=False) == [b"0", b"1", b"2"]
        producer.abort_transaction(5)
        wait_s(0.1)

    room.run(room.a, work)
    assert room.seen() == [b"0", b"2"]


def test_a_successor_fences_and_aborts_what_the_predecessor_had_open(room: Room) -> None:
    def first() -> SimProducer:
        producer = room.producer()
        producer.begin_transaction()
        producer.produce("t", value=b"lost", partition=0)
        producer.flush(5)
        return producer

    def second() -> float:
        began_s = room.loop.time()
        producer = room.producer()
        took_s = room.loop.time() - began_s
        commit(producer, b"2")
        return took_s

    def zombie(producer: SimProducer) -> list[KafkaError]:
        told = [error_of(lambda: producer.commit_transaction(5))]
        told.append(error_of(lambda: producer.produce("t", value=b"x", partition=0)))
        told.append(error_of(producer.begin_transaction))
        told.append(error_of(lambda: producer.abort_transaction(5)))
        return told

    old = room.run(room.a, first)
    assert 0.5 < room.run(room.b, second) < 0.7
    told = room.run(room.a, lambda: zombie(old))
    fenced, general = KafkaError._FENCED, KafkaError._FATAL
    assert [error.code() for error in told] == [fenced, general, fenced, fenced]
    assert all(error.fatal() for error in told)
    room.pass_s(1)
    assert room.seen() == [b"2"]


def test_without_an_open_predecessor_a_warm_producer_initialises_at_once(room: Room) -> None:
    def work() -> float:
        began_s = room.loop.time()
        room.producer()
        return room.loop.time() - began_s

    assert room.run(room.a, work) < 0.03


@pytest.mark.parametrize("fate", [CommitFate.REQUEST_LOST, CommitFate.REPLY_LOST])
def test_a_commit_that_timed_out_is_resumed_by_calling_it_again(
    room: Room, fate: CommitFate
) -> None:
    room.fates.next = [fate]

    def work() -> None:
        producer = room.producer()
        error = error_of(lambda: commit(producer, b"1"))
        assert error.code() == KafkaError._TIMED_OUT
        assert error.retriable()
        assert room.seen() == ([b"1"] if fate is CommitFate.REPLY_LOST else [])
        producer.commit_transaction(5)
        commit(producer, b"2")
        wait_s(0.1)

    room.run(room.a, work)
    assert room.seen() == [b"1", b"2"]


def test_a_late_copy_of_a_commit_ends_the_next_transaction_of_the_same_epoch(room: Room) -> None:
    room.fates.next = [CommitFate.LATE_COPY]

    def work() -> None:
        producer = room.producer()
        error_of(lambda: commit(producer, b"1"))
        producer.commit_transaction(5)
        producer.begin_transaction()
        producer.produce("t", value=b"2", partition=0)
        producer.produce("t", value=b"with 2", partition=1)
        error = error_of(lambda: producer.commit_transaction(5))
        assert error.txn_requires_abort()
        assert error_of(lambda: producer.abort_transaction(5)).fatal()
        wait_s(0.1)

    room.run(room.a, work)
    assert room.kafka.transactions.late_commits_struck == 1
    assert sorted([len(room.seen(0)), len(room.seen(1))]) in ([0, 2], [1, 1])


def test_a_late_copy_does_nothing_to_a_new_epoch(room: Room) -> None:
    room.fates.next = [CommitFate.LATE_COPY]

    def work() -> None:
        producer = room.producer()
        error_of(lambda: commit(producer, b"1"))
        producer.commit_transaction(5)
        commit(room.producer(), b"2", b"3")
        wait_s(0.1)

    room.run(room.a, work)
    assert room.seen() == [b"1", b"2", b"3"]
    assert room.kafka.transactions.late_commits_struck == 0


def test_an_abortable_error_leaves_nothing_and_the_producer_goes_on(room: Room) -> None:
    room.fates.next = [CommitFate.ABORTABLE]

    def work() -> None:
        producer = room.producer()
        error = error_of(lambda: commit(producer, b"1"))
        assert error.txn_requires_abort()
        assert not error.fatal()
        producer.abort_transaction(5)
        commit(producer, b"2")
        wait_s(0.1)

    room.run(room.a, work)
    assert room.seen() == [b"2"]


@pytest.mark.parametrize("fate", [CommitFate.FATAL_COMMITTED, CommitFate.FATAL_NOT_COMMITTED])
def test_after_a_fatal_error_only_the_log_tells_whether_it_was_committed(
    room: Room, fate: CommitFate
) -> None:
    room.fates.next = [fate]

    def work() -> None:
        error = error_of(lambda: commit(room.producer(), b"1"))
        assert error.fatal()
        assert error.code() != KafkaError._FENCED
        room.producer()
        wait_s(0.1)

    room.run(room.a, work)
    assert room.seen() == ([b"1"] if fate is CommitFate.FATAL_COMMITTED else [])


def test_while_the_broker_is_down_calls_block_up_to_their_timeout(room: Room) -> None:
    def work() -> None:
        producer = room.producer()
        room.kafka.go_down()
        room.loop.call_world(12, room.kafka.come_up)
        began_s = room.loop.time()
        for _ in range(2):
            assert error_of(lambda: producer.list_topics(timeout=1)).retriable()
        assert error_of(lambda: commit(producer, b"1")).code() == KafkaError._TIMED_OUT
        assert room.loop.time() - began_s == pytest.approx(7, abs=0.1)
        assert error_of(lambda: producer.commit_transaction(2)).retriable()
        producer.commit_transaction(5)
        wait_s(0.1)

    room.run(room.a, work)
    assert room.seen() == [b"1"]


def test_the_broker_ends_a_transaction_that_is_open_for_too_long(room: Room) -> None:
    def work() -> None:
        producer = room.producer()
        producer.begin_transaction()
        producer.produce("t", value=b"1", partition=0)
        producer.flush(5)
        wait_s(71)
        assert room.kafka.logs["t", 0].stable_offset == 2
        assert error_of(lambda: producer.commit_transaction(5)).code() == KafkaError._FENCED

    room.run(room.a, work)
    assert room.seen() == []


def test_a_node_killed_between_batch_and_commit_leaves_an_open_transaction(room: Room) -> None:
    room.fates.kill_at = Stage.BATCH_APPENDED
    room.begin(room.a, lambda: commit(room.producer(), b"1"))
    room.pass_s(2)
    assert not room.a.alive
    assert room.kafka.logs["t", 0].stable_offset == 0
    assert room.kafka.logs["t", 0].high_watermark == 1


def test_a_frozen_nodes_commit_goes_on_when_it_thaws_and_is_fenced(room: Room) -> None:
    room.fates.kill = room.loop.freeze
    room.fates.kill_at = Stage.BATCH_APPENDED
    task = room.begin(room.a, lambda: error_of(lambda: commit(room.producer(), b"1")))
    room.pass_s(2)
    room.fates.kill_at = None
    room.run(room.b, lambda: commit(room.producer(), b"2"))
    room.loop.thaw(room.a)
    assert room.loop.run_until_complete(task).code() == KafkaError._FENCED
    room.pass_s(1)
    assert room.seen() == [b"2"]


def test_a_committed_reader_skips_aborted_records_and_stops_at_the_stable_offset(
    room: Room,
) -> None:
    def work() -> list[tuple[bytes | None, int]]:
        room.fates.next = [CommitFate.ABORTABLE]
        producer = room.producer()
        error_of(lambda: commit(producer, b"aborted"))
        producer.abort_transaction(5)
        commit(producer, b"1")
        wait_s(0.1)
        producer.begin_transaction()
        producer.produce("t", value=b"open", partition=0)
        producer.flush(5)
        consumer = room.kafka.consumer(
            {"isolation.level": "read_committed", "enable.partition.eof": True}
        )
        consumer.assign([TopicPartition("t", 0, 0)])
        found = []
        while (message := consumer.poll(0.2)) is not None:
            if (error := message.error()) is not None:
                assert error.code() == KafkaError._PARTITION_EOF
            found.append((message.value(), message.offset()))
        consumer.close()
        return found

    # aborted 0, marker 1, record 2, marker 3, open 4: the end it gets to is the stable offset.
    assert room.run(room.a, work) == [(b"1", 2), (None, 4)]


def test_a_tailing_reader_gets_a_record_when_it_is_committed(room: Room) -> None:
    def tail() -> tuple[bytes | None, float]:
        consumer = room.kafka.consumer({"isolation.level": "read_committed"})
        consumer.assign([TopicPartition("t", 0, 0)])
        message = consumer.poll(60)
        assert message is not None
        return message.value(), room.loop.time()

    task = room.begin(room.b, tail)
    room.pass_s(10)
    room.run(room.a, lambda: commit(room.producer(), b"1"))
    value, at_s = room.loop.run_until_complete(task)
    assert value == b"1"
    assert 10 < at_s < 10.2


def test_a_compacted_log_keeps_the_newest_of_each_key(room: Room) -> None:
    room.kafka.create_topic("positions", compacted=True)

    def work() -> None:
        producer = room.producer()
        for number in range(1_200):
            producer.begin_transaction()
            producer.produce("positions", value=b"%d" % number, key=b"position")
            producer.commit_transaction(5)
        wait_s(0.1)

    room.run(room.a, work)
    log = room.kafka.logs["positions", 0]
    entries, end = log.read(0, limit=10**6, committed=True)
    assert entries[-1].record is not None
    assert entries[-1].record.value == b"1199"
    assert end == log.high_watermark == 2_400
    assert len(log.entries) < 1_500


def test_a_warm_producer_leaves_the_active_one_alone_until_it_initialises(room: Room) -> None:
    def work() -> None:
        active = room.producer()
        warm = room.kafka.producer({"transactional.id": "x"})
        warm.list_topics(timeout=5)
        commit(active, b"1")
        warm.init_transactions(30)
        commit(warm, b"2")
        wait_s(0.1)
        assert error_of(active.begin_transaction).code() == KafkaError._STATE

    room.run(room.a, work)
    assert room.seen() == [b"1", b"2"]


@pytest.mark.parametrize("reset", ["error", "earliest"])
def test_a_reader_of_a_deleted_topic_hears_so_or_begins_anew(room: Room, reset: str) -> None:
    def work() -> tuple[object, object]:
        config = {"isolation.level": "read_committed", "auto.offset.reset": reset}
        consumer = room.kafka.consumer(config)
        consumer.assign([TopicPartition("t", 0, 0)])
        producer = room.producer()
        commit(producer, b"1", b"2", b"3")
        for _ in range(3):
            consumer.poll(5)
        room.kafka.empty_topic("t")
        commit(room.producer(), b"new")
        message = consumer.poll(5)
        assert message is not None
        error = message.error()
        return (message.value(), None if error is None else error.code())

    expected = (None, KafkaError._AUTO_OFFSET_RESET) if reset == "error" else (b"new", None)
    assert room.run(room.a, work) == expected


def test_compaction_leaves_what_is_not_decided_yet(room: Room) -> None:
    room.kafka.create_topic("positions", compacted=True)
    log = room.kafka.logs["positions", 0]
    open_one = Transaction(0)
    log.append([room.kafka.record(None, b"k", b"open")], open_one)
    for number in range(1_000):
        log.append([room.kafka.record(None, b"k", b"%d" % number)], None)
    other = Transaction(0)
    log.append([room.kafka.record(None, b"other", b"")], other)
    log.mark(other)
    open_one.outcome = Outcome.COMMITTED
    log.mark(open_one)
    entries, _ = log.read(0, limit=10**6, committed=True)
    assert entries[0].record is not None
    assert entries[0].record.value == b"open"
