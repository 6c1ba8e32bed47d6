"""Reading a shard back from Kafka: its position and identity, and the end of its trades."""

import time
from collections.abc import Callable
from typing import Any

import structlog

from k2.errors import RejectError, StopError
from k2.kafka.clients import LIBRARY, Clients
from k2.kafka.connection import KafkaConnection
from k2.kafka.encoding import decode_record, split_wire
from k2.kafka.partition_reader import PartitionReader
from k2.kafka.position import (
    IDENTITY_KEY,
    NOTHING_RECORDED,
    POSITION_KEY,
    ShardRecord,
)

TAIL_RECORDS = 5_000
"""Offsets of the trades partition looked at to compare its end with the position."""

_log = structlog.get_logger()


def read_shard(
    kafka: KafkaConnection,
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
        RetryError: If the partition cannot be read to its end.
        StopError: If a record is not one of ours.
    """
    intake = PositionIntake()
    reader = PartitionReader(
        kafka, positions_topic, shard, clients=clients, monotonic_s=monotonic_s
    )
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
    kafka: KafkaConnection,
    *,
    trades_topic: str,
    shard: int,
    writer_schema: Any,
    records: int = TAIL_RECORDS,
    from_offset: int = 0,
    clients: Clients = LIBRARY,
    monotonic_s: Callable[[], float] = time.monotonic,
) -> tuple[bool, dict[str, int]]:
    """Read the end of a trades partition.

    Args:
        kafka: Where Kafka is.
        trades_topic: The topic.
        shard: Its partition.
        writer_schema: Parsed schema of the trades.
        records: Offsets to look at.
        from_offset: What is below it is passed over.
        clients: Makers of the consumer.
        monotonic_s: The clock of the silence.

    Returns:
        Whether the partition has ever held a record, and the last id of every symbol seen.
        Records that are not ours (a console producer's test message) are passed over.
    """
    last_ids: dict[str, int] = {}
    reader = PartitionReader(kafka, trades_topic, shard, clients=clients, monotonic_s=monotonic_s)
    _, end = reader.ends()
    for message in reader.read(records_max=records):
        if message.offset() < from_offset:
            continue
        try:
            record = decode_record(split_wire(message.value())[1], writer_schema)
            last_ids[record["symbol"]] = record["source_sequence"]
        except (RejectError, KeyError):
            continue
    # Records that retention removed were there: such a partition is not a fresh tape.
    return end > 0, last_ids
