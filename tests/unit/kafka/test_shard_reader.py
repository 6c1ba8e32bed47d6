from collections import deque
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from k2.errors import RetryError, StopError
from k2.kafka.clients import Clients
from k2.kafka.connection import KafkaConnection
from k2.kafka.position import (
    NOTHING_RECORDED,
    POSITION_KEY,
    ShardPosition,
    ShardRecord,
    SymbolPosition,
    encode_position,
)
from k2.kafka.shard_reader import EndAsker, ShardFollower


class Message:
    """A record, or an event of the library."""

    def __init__(self, offset: int, value: bytes | None = None, code: int | None = None) -> None:
        self._offset = offset
        self._value = value
        self._error = None if code is None else KafkaError(code, retriable=code == TRANSPORT)

    def error(self) -> KafkaError | None:
        return self._error

    def offset(self) -> int:
        return self._offset

    def key(self) -> bytes:
        return POSITION_KEY

    def value(self) -> bytes | None:
        return self._value

    def topic(self) -> str:
        return "t.positions"

    def timestamp(self) -> tuple[int, int]:
        return 1, 1_000 + self._offset

    def partition(self) -> int:
        return 3


TRANSPORT = KafkaError._TRANSPORT


class FakeConsumer:
    """Gives the messages a test put there; the clock moves when it has none."""

    made: list["FakeConsumer"]
    waiting: deque[Message]
    now_s: float
    end: int | KafkaError

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings
        self.assigned: list[TopicPartition] = []
        self.closed = False
        type(self).made.append(self)

    def assign(self, partitions: list[TopicPartition]) -> None:
        self.assigned = partitions

    def poll(self, timeout_s: float) -> Message | None:
        if self.waiting:
            return self.waiting.popleft()
        type(self).now_s += timeout_s
        return None

    def get_watermark_offsets(self, _partition: Any, *, timeout: float) -> tuple[int, int]:
        assert timeout
        if isinstance(self.end, KafkaError):
            raise KafkaException(self.end)
        return 0, self.end + (self.settings["isolation.level"] == "read_uncommitted")

    def close(self) -> None:
        self.closed = True


@pytest.fixture(autouse=True)
def kafka() -> type[FakeConsumer]:
    FakeConsumer.made, FakeConsumer.waiting, FakeConsumer.now_s = [], deque(), 0.0
    return FakeConsumer


CLIENTS = Clients(FakeConsumer, FakeConsumer)


def follower() -> ShardFollower:
    return ShardFollower(
        KafkaConnection("kafka:9092"),
        positions_topic="t.positions",
        shard=3,
        clients=CLIENTS,
        monotonic_s=lambda: FakeConsumer.now_s,
    )


def at(next_id: int) -> ShardPosition:
    return ShardPosition({"X": SymbolPosition(next_id, next_id - 1)})


def written(offset: int, next_id: int) -> Message:
    return Message(offset, encode_position(at(next_id)))


def ended(offset: int) -> Message:
    return Message(offset, code=KafkaError._PARTITION_EOF)


def test_a_follower_reads_committed_records_from_the_beginning_and_contacts_nobody_before() -> None:
    shard = follower()
    assert FakeConsumer.made == []
    shard.follow()
    (consumer,) = FakeConsumer.made
    assert [(p.topic, p.partition) for p in consumer.assigned] == [("t.positions", 3)]
    assert consumer.settings["isolation.level"] == "read_committed"


def test_everything_there_is_is_taken_in_at_once(kafka: type[FakeConsumer]) -> None:
    shard = follower()
    kafka.waiting.extend([written(0, 5), written(7, 9), ended(9)])
    assert shard.follow()
    assert shard.record == ShardRecord(None, at(9))
    assert kafka.now_s == 0.0, "the end ends the waiting"


def test_the_end_moves_past_markers_and_records_that_compaction_took(
    kafka: type[FakeConsumer],
) -> None:
    shard = follower()
    kafka.waiting.extend([written(3, 5)])
    assert not shard.follow(), "what is on its way to the end is the past, not news"
    assert shard.next_offset == 4
    kafka.waiting.extend([ended(9)])
    assert shard.follow()
    assert shard.next_offset == 9
    kafka.waiting.extend([ended(4)])
    assert not shard.follow()
    assert shard.next_offset == 9


def test_nothing_new_ends_the_waiting_after_its_time(kafka: type[FakeConsumer]) -> None:
    shard = follower()
    assert not shard.follow()
    assert kafka.now_s == 1.0
    assert shard.record == NOTHING_RECORDED


def test_a_record_that_says_the_same_changes_nothing(kafka: type[FakeConsumer]) -> None:
    shard = follower()
    kafka.waiting.extend([written(0, 5), ended(1)])
    assert shard.follow()
    kafka.waiting.extend([written(2, 5), ended(3)])
    assert not shard.follow()


def test_a_strange_last_record_is_refused_until_it_is_written_over(
    kafka: type[FakeConsumer],
) -> None:
    shard = follower()
    kafka.waiting.extend([written(0, 5), Message(1, b"?"), ended(2)])
    for _ in range(2):
        with pytest.raises(StopError, match=r"offset 1 of partition 3.*k2 positions rebuild"):
            shard.follow()
    kafka.waiting.extend([written(2, 9), ended(3)])
    assert shard.follow()
    assert shard.record.position == at(9)


def test_a_broker_that_is_away_is_waited_for(kafka: type[FakeConsumer]) -> None:
    shard = follower()
    kafka.waiting.extend([Message(-1, code=TRANSPORT), written(0, 5), ended(1)])
    assert shard.follow()
    assert len(kafka.made) == 1


def test_a_log_that_cannot_be_read_on_is_read_anew(kafka: type[FakeConsumer]) -> None:
    shard = follower()
    kafka.waiting.extend([written(6, 5), ended(7)])
    shard.follow()
    kafka.waiting.extend([Message(-1, code=KafkaError._AUTO_OFFSET_RESET)])
    with pytest.raises(RetryError, match=r"cannot read t\.positions"):
        shard.follow()
    assert kafka.made[0].closed
    kafka.waiting.extend([ended(2)])
    assert shard.follow(), "what the other log said counts no more"
    assert (shard.record, shard.next_offset) == (NOTHING_RECORDED, 2)


def test_a_closed_follower_keeps_what_it_read(kafka: type[FakeConsumer]) -> None:
    shard = follower()
    kafka.waiting.extend([written(0, 5), ended(1)])
    shard.follow()
    shard.close()
    shard.close()
    assert kafka.made[0].closed
    assert shard.record.position == at(5)


def test_the_two_kinds_of_end_are_asked_by_clients_of_their_own_which_stay(
    kafka: type[FakeConsumer],
) -> None:
    asker = EndAsker(KafkaConnection("kafka:9092"), clients=CLIENTS)
    kafka.end = 10
    for _ in range(2):
        assert asker.high_watermark("t", 0) == 11
        assert asker.last_stable_offset("t", 0) == 10
    assert len(kafka.made) == 2
    asker.close()
    assert all(consumer.closed for consumer in kafka.made)


def test_an_end_kafka_does_not_tell_is_asked_for_again(kafka: type[FakeConsumer]) -> None:
    asker = EndAsker(KafkaConnection("kafka:9092"), clients=CLIENTS)
    kafka.end = KafkaError(KafkaError._TIMED_OUT)
    with pytest.raises(RetryError, match="end of t"):
        asker.high_watermark("t", 0)
    kafka.end = 4
    assert asker.high_watermark("t", 0) == 5


def test_while_it_reads_anew_it_says_what_it_had_read(kafka: type[FakeConsumer]) -> None:
    shard = follower()
    kafka.waiting.extend([written(0, 5), written(7, 9), ended(9)])
    shard.follow()
    kafka.waiting.append(Message(0, code=KafkaError.TOPIC_AUTHORIZATION_FAILED))
    with pytest.raises(RetryError):
        shard.follow()
    assert (shard.record, shard.behind) == (ShardRecord(None, at(9)), True)
    assert shard.next_offset == 0, "nothing is known of the log that is there now"
    kafka.waiting.append(written(0, 5))
    shard.follow()
    assert (shard.record, shard.behind) == (ShardRecord(None, at(9)), True)
    kafka.waiting.append(Message(0, code=KafkaError.TOPIC_AUTHORIZATION_FAILED))
    with pytest.raises(RetryError):
        shard.follow()
    assert shard.record == ShardRecord(None, at(9)), "half a reading is never told"
    kafka.waiting.extend([written(0, 5), written(7, 11), ended(9)])
    shard.follow()
    assert (shard.record, shard.behind) == (ShardRecord(None, at(11)), False)


def test_a_topic_made_again_has_nothing_to_say_once_its_end_was_seen(
    kafka: type[FakeConsumer],
) -> None:
    shard = follower()
    kafka.waiting.extend([written(0, 5), ended(1)])
    shard.follow()
    kafka.waiting.append(Message(0, code=KafkaError._AUTO_OFFSET_RESET))
    with pytest.raises(RetryError):
        shard.follow()
    kafka.waiting.append(ended(0))
    shard.follow()
    assert (shard.record, shard.behind) == (NOTHING_RECORDED, False)


def test_a_first_reading_has_nothing_before_it(kafka: type[FakeConsumer]) -> None:
    shard = follower()
    kafka.waiting.append(written(0, 5))
    shard.follow()
    assert shard.record == ShardRecord(None, at(5))
