"""Reading a shard back from Kafka: its position and identity, the end of its trades, its gaps."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import structlog
from confluent_kafka import OFFSET_BEGINNING, KafkaError, KafkaException, TopicPartition

from k2.errors import RejectError, RetryError, StopError
from k2.kafka.clients import LIBRARY, Clients
from k2.kafka.encoding import decode_record, split_wire
from k2.kafka.gap_records import GapEvent, GapRecord, decode_gap
from k2.kafka.position import (
    IDENTITY_KEY,
    NOTHING_RECORDED,
    POSITION_KEY,
    ShardRecord,
)
from k2.market import IdRange

READ_DEADLINE_S = 30.0
TAIL_RECORDS = 5_000
"""Offsets of the trades partition looked at to compare its end with the position."""

_log = structlog.get_logger()


def read_shard(
    bootstrap: str,
    *,
    positions_topic: str,
    shard: int,
    isolation: str = "read_uncommitted",
    clients: Clients = LIBRARY,
    monotonic_s: Callable[[], float] = time.monotonic,
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
    intake = PositionIntake()
    reader = _Reader(bootstrap, TopicPartition(positions_topic, shard), clients, monotonic_s)
    for message in reader.read(isolation=isolation):
        intake.take(message)
    intake.check()
    return intake.record


class PositionIntake:
    """What a partition of ``.positions`` says, message by message; the last of each key counts."""

    def __init__(self) -> None:
        """Begin with nothing read."""
        self.record = NOTHING_RECORDED
        self._refusals: dict[bytes, StopError] = {}

    def take(self, message: Any) -> None:
        """Take in the next message. A request that is none is logged and passed over."""
        key = message.key()
        try:
            self.record = self.record.taken_in(key, message.value())
        except RejectError as exc:
            topic, shard, offset = message.topic(), message.partition(), message.offset()
            if key not in (POSITION_KEY, IDENTITY_KEY):
                _log.warning(
                    "backfill_request_unreadable", shard=shard, offset=offset, reason=str(exc)
                )
                return
            self._refusals[key] = StopError(
                f"{topic} holds a record that is not a position, at offset {offset} of partition "
                f"{shard}: {exc}; rebuild it with `k2 positions rebuild --from-topic`"
            )
        else:
            self._refusals.pop(key, None)

    def check(self) -> None:
        """Refuse a last record that is not what its key says; for when the end was reached.

        Raises:
            StopError: With the command that writes a newer one.
        """
        for refusal in self._refusals.values():
            raise refusal


def read_tail(
    bootstrap: str,
    *,
    trades_topic: str,
    shard: int,
    writer_schema: Any,
    whole: bool = False,
    records: int = TAIL_RECORDS,
    from_offset: int = 0,
    clients: Clients = LIBRARY,
    monotonic_s: Callable[[], float] = time.monotonic,
) -> tuple[bool, dict[str, int]]:
    """Read the end of a trades partition (or all of it).

    Args:
        bootstrap: Kafka's address.
        trades_topic: The topic.
        shard: Its partition.
        writer_schema: Parsed schema of the trades.
        whole: Read from the first offset instead of the last ``records``.
        records: Offsets to look at.
        from_offset: What is below it is passed over.
        clients: Makers of the consumer.
        monotonic_s: The clock of the deadline.

    Returns:
        Whether the partition has ever held a record, and the last id of every symbol seen.
        Records that are not ours (a console producer's test message) are passed over.
    """
    last_ids: dict[str, int] = {}
    start = OFFSET_BEGINNING if whole else -records
    reader = _Reader(bootstrap, TopicPartition(trades_topic, shard), clients, monotonic_s)
    _, high = reader.watermarks(isolation="read_uncommitted")
    for message in reader.read(from_end=start):
        if message.offset() < from_offset:
            continue
        try:
            record = decode_record(split_wire(message.value())[1], writer_schema)
            last_ids[record["symbol"]] = record["source_sequence"]
        except (RejectError, KeyError):
            continue
    # Records that retention removed were there: such a partition is not a fresh tape.
    return high > 0, last_ids


def first_offset(bootstrap: str, topic: str, shard: int, *, clients: Clients = LIBRARY) -> int:
    """Return the first offset a partition still has; above 0 once retention removed records."""
    reader = _Reader(bootstrap, TopicPartition(topic, shard), clients)
    return reader.watermarks(isolation="read_uncommitted")[0]


def end_offset(bootstrap: str, topic: str, shard: int, *, clients: Clients = LIBRARY) -> int:
    """Return the offset behind the last record of a partition."""
    reader = _Reader(bootstrap, TopicPartition(topic, shard), clients)
    return reader.watermarks(isolation="read_uncommitted")[1]


def read_gaps(
    bootstrap: str, *, gaps_topic: str, shard: int, clients: Clients = LIBRARY
) -> list[tuple[str, IdRange]]:
    """Return symbol and ids of every gap a shard has declared, in the order it did."""
    records = read_gap_records(bootstrap, gaps_topic=gaps_topic, shard=shard, clients=clients)
    return [(one.symbol, one.ids) for one in records if one.event is GapEvent.DECLARED]


def read_gap_records(
    bootstrap: str, *, gaps_topic: str, shard: int, clients: Clients = LIBRARY
) -> list[GapRecord]:
    """Return everything a shard's ``.gaps`` says, declarations and repairs, in order."""
    records = []
    for message in _Reader(bootstrap, TopicPartition(gaps_topic, shard), clients).read():
        try:
            records.append(decode_gap(message.value()))
        except RejectError:
            continue
    return records


class _Reader:
    """Reads one partition once, with clients made for it."""

    def __init__(
        self,
        bootstrap: str,
        partition: TopicPartition,
        clients: Clients,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = {
            "bootstrap.servers": bootstrap,
            "group.id": "k2-positions-reader",  # assign() only: the group is never joined
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
            "auto.offset.reset": "earliest",
            "fetch.queue.backoff.ms": 1,
            "fetch.wait.max.ms": 20,  # the end is known only when a fetch found nothing
            "log_level": 2,  # what goes wrong is said by the caller, in its own words
        }
        self._partition = partition
        self._make = clients.consumer
        self._monotonic_s = monotonic_s

    def read(
        self, *, from_end: int = OFFSET_BEGINNING, isolation: str = "read_uncommitted"
    ) -> Iterator[Any]:
        """Yield committed messages up to the partition's end as asked now."""
        topic, number = self._partition.topic, self._partition.partition
        consumer = self._make(self._settings)
        try:
            low, high = self.watermarks(isolation=isolation)
            if high == 0:
                return
            start = low if from_end == OFFSET_BEGINNING else max(low, high + from_end)
            consumer.assign([TopicPartition(topic, number, start)])
            deadline_s = self._monotonic_s() + READ_DEADLINE_S
            while self._monotonic_s() < deadline_s:
                message = consumer.poll(0.2)
                if message is None:
                    continue
                offset = message.offset() or 0
                if (problem := message.error()) is None:
                    yield message
                    if offset + 1 >= high:
                        return
                elif problem.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - its own name
                    if offset >= high:
                        return
                elif not problem.retriable():
                    raise RetryError(f"Kafka cannot read {topic}: {problem.str()}")
            raise RetryError(f"{topic} was not read to offset {high} in {READ_DEADLINE_S} s")
        finally:
            consumer.close()

    def watermarks(self, *, isolation: str) -> tuple[int, int]:
        """Return the first offset and the end; librdkafka's end depends on the isolation."""
        consumer = self._make({**self._settings, "isolation.level": isolation})
        try:
            low, high = consumer.get_watermark_offsets(self._partition, timeout=10.0)
        except KafkaException as exc:
            raise RetryError(
                f"Kafka did not tell the end of {self._partition.topic}: {exc}"
            ) from exc
        finally:
            consumer.close()
        return low, high
