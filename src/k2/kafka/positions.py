"""Reading a shard back from Kafka: its position and identity, the end of its trades, its gaps."""

import time
from typing import Any

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    TopicPartition,
)

from k2.errors import RejectError, RetryError, StopError
from k2.kafka.encoding import decode_record, split_wire
from k2.kafka.gap_records import decode_gap
from k2.kafka.position import (
    IDENTITY_KEY,
    POSITION_KEY,
    Identity,
    ShardRecord,
    SymbolPosition,
    decode_identity,
    decode_position,
)
from k2.market import IdRange

READ_DEADLINE_S = 30.0
TAIL_RECORDS = 5_000
"""Offsets of the trades partition looked at to compare its end with the position."""


def read_shard(
    bootstrap: str, *, positions_topic: str, shard: int, isolation: str = "read_uncommitted"
) -> ShardRecord:
    """Read one shard's identity and position, up to the end.

    Call it after ``init_transactions``: no transaction of the shard is open then, so everything
    below the high watermark is decided. The watermark is asked for with ``read_uncommitted``,
    because librdkafka's ``read_committed`` end is the last stable offset. Only a look that fences
    nobody, and may be out of date, asks for the end with ``read_committed``.

    Raises:
        RetryError: If the partition cannot be read to its end in time.
        StopError: If a record is not one of ours.
    """
    identity: Identity | None = None
    position: dict[str, SymbolPosition] | None = None
    partition = TopicPartition(positions_topic, shard)
    for message in _read(bootstrap, partition, isolation=isolation):
        try:
            if message.key() == POSITION_KEY:
                position = decode_position(message.value())
            elif message.key() == IDENTITY_KEY:
                identity = decode_identity(message.value())
        except RejectError as exc:
            raise StopError(
                f"{positions_topic} holds a record that is not a position, at offset "
                f"{message.offset()} of partition {shard}: {exc}; "
                "rebuild it with `k2 positions rebuild --from-topic`"
            ) from exc
    return ShardRecord(identity, position)


def read_tail(
    bootstrap: str, *, trades_topic: str, shard: int, writer_schema: Any, whole: bool = False
) -> tuple[bool, dict[str, int]]:
    """Read the end of a trades partition (or all of it).

    Args:
        bootstrap: Kafka's address.
        trades_topic: The topic.
        shard: Its partition.
        writer_schema: Parsed schema of the trades.
        whole: Read from the first offset instead of the last ``TAIL_RECORDS``.

    Returns:
        Whether the partition has ever held a record, and the last id of every symbol seen.
        Records that are not ours (a console producer's test message) are passed over.
    """
    last_ids: dict[str, int] = {}
    start = OFFSET_BEGINNING if whole else -TAIL_RECORDS
    partition = TopicPartition(trades_topic, shard)
    _, high = _watermarks(bootstrap, partition, isolation="read_uncommitted")
    for message in _read(bootstrap, partition, from_end=start):
        try:
            record = decode_record(split_wire(message.value())[1], writer_schema)
            last_ids[record["symbol"]] = record["source_sequence"]
        except (RejectError, KeyError):
            continue
    # Records that retention removed were there: such a partition is not a fresh tape.
    return high > 0, last_ids


def first_offset(bootstrap: str, topic: str, shard: int) -> int:
    """Return the first offset a partition still has; above 0 once retention removed records."""
    return _watermarks(bootstrap, TopicPartition(topic, shard), isolation="read_uncommitted")[0]


def end_offset(bootstrap: str, topic: str, shard: int) -> int:
    """Return the offset behind the last record of a partition."""
    return _watermarks(bootstrap, TopicPartition(topic, shard), isolation="read_uncommitted")[1]


def read_gaps(bootstrap: str, *, gaps_topic: str, shard: int) -> list[tuple[str, IdRange]]:
    """Return symbol and ids of every gap a shard has declared, in the order it did."""
    gaps = []
    for message in _read(bootstrap, TopicPartition(gaps_topic, shard)):
        try:
            gaps.append(decode_gap(message.value()))
        except RejectError:
            continue
    return gaps


def _read(
    bootstrap: str,
    partition: TopicPartition,
    *,
    from_end: int = OFFSET_BEGINNING,
    isolation: str = "read_uncommitted",
) -> Any:
    """Yield committed messages of one partition up to its end as asked now."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "k2-positions-reader",  # assign() only: the group is never joined
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
            "auto.offset.reset": "earliest",
            "fetch.queue.backoff.ms": 1,
            "log_level": 2,  # what goes wrong is said by the caller, in its own words
        }
    )
    try:
        low, high = _watermarks(bootstrap, partition, isolation=isolation)
        if high == 0:
            return
        start = low if from_end == OFFSET_BEGINNING else max(low, high + from_end)
        consumer.assign([TopicPartition(partition.topic, partition.partition, start)])
        deadline_s = time.monotonic() + READ_DEADLINE_S
        while time.monotonic() < deadline_s:
            message = consumer.poll(0.2)
            if message is None:
                continue
            offset = message.offset() or 0
            if (problem := message.error()) is None:
                yield message
                if offset + 1 >= high:
                    return
            elif problem.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - the library's name
                if offset >= high:
                    return
            elif not problem.retriable():
                raise RetryError(f"Kafka cannot read {partition.topic}: {problem.str()}")
        raise RetryError(f"{partition.topic} was not read to offset {high} in {READ_DEADLINE_S} s")
    finally:
        consumer.close()


def _watermarks(bootstrap: str, partition: TopicPartition, *, isolation: str) -> tuple[int, int]:
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "k2-positions-reader",
            "isolation.level": isolation,
            "log_level": 2,
        }
    )
    try:
        low, high = consumer.get_watermark_offsets(partition, timeout=10.0)
    except KafkaException as exc:
        raise RetryError(f"Kafka did not tell the end of {partition.topic}: {exc}") from exc
    finally:
        consumer.close()
    return low, high
