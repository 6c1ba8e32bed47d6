"""One partition read from some offset to its end, however long it is.

The read gives up when nothing comes for a while, not when there is much to read.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any

from confluent_kafka import KafkaError, TopicPartition

from k2.errors import RetryError
from k2.kafka.clients import LIBRARY, Clients
from k2.kafka.connection import KafkaConnection
from k2.kafka.rights import explained
from k2.kafka.watermarks import watermarks

QUIET_MAX_S = 30.0
ASK_TIMEOUT_S = 10.0


class PartitionReader:
    """Reads one partition, fencing nobody; every call makes clients of its own."""

    def __init__(
        self,
        kafka: KafkaConnection,
        topic: str,
        shard: int,
        *,
        clients: Clients = LIBRARY,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Name the partition; ``monotonic_s`` is the clock of the silence."""
        self._kafka = kafka
        self._settings = {
            "group.id": "k2-partition-reader",  # assign() only: the group is never joined
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
            "auto.offset.reset": "earliest",
            "fetch.queue.backoff.ms": 1,
            "fetch.wait.max.ms": 20,  # the end is known only when a fetch found nothing
            "log_level": 2,  # what goes wrong is said by the caller, in its own words
        }
        self._topic = topic
        self._shard = shard
        self._make = clients.consumer
        self._monotonic_s = monotonic_s

    def read(
        self, *, records_max: int | None = None, isolation: str = "read_uncommitted"
    ) -> Iterator[Any]:
        """Yield committed messages up to the partition's end as asked for now.

        Args:
            records_max: Offsets before the end to begin at; None begins at the first one.
            isolation: Of the question where the end is. Whoever has fenced the writer waits for
                everything below the high watermark; a mere look, which may be out of date, ends
                at the last stable offset (``read_committed``).

        Raises:
            RetryError: If the partition cannot be read to its end.
        """
        consumer = self._make(self._kafka.client(self._settings))
        try:
            first, end = self.ends(isolation=isolation)
            if end == 0:
                return
            start = first if records_max is None else max(first, end - records_max)
            consumer.assign([TopicPartition(self._topic, self._shard, start)])
            heard_s = self._monotonic_s()
            while self._monotonic_s() - heard_s < QUIET_MAX_S:
                message = consumer.poll(0.2)
                if message is None:
                    continue
                offset = message.offset() or 0
                if (problem := message.error()) is None:
                    yield message
                    heard_s = self._monotonic_s()
                    if offset + 1 >= end:
                        return
                elif problem.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - its own name
                    if offset >= end:
                        return
                elif not problem.retriable():
                    raise RetryError(f"Kafka cannot read {self._topic}: {explained(problem)}")
            raise RetryError(
                f"{self._topic}: nothing came for {QUIET_MAX_S:g} s, its end is at {end}"
            )
        finally:
            consumer.close()

    def ends(self, *, isolation: str = "read_uncommitted") -> tuple[int, int]:
        """Return the first offset and the one behind the last record.

        librdkafka takes the isolation of this question from the client's settings: its
        ``read_committed`` end is the last stable offset.

        Raises:
            RetryError: If Kafka does not say.
        """
        consumer = self._make(self._kafka.client({**self._settings, "isolation.level": isolation}))
        try:
            return watermarks(consumer, self._topic, self._shard, timeout_s=ASK_TIMEOUT_S)
        finally:
            consumer.close()


def first_offset(kafka: KafkaConnection, topic: str, shard: int) -> int:
    """Return the first offset a partition still has; above 0 once retention removed records."""
    return PartitionReader(kafka, topic, shard).ends()[0]


def end_offset(kafka: KafkaConnection, topic: str, shard: int) -> int:
    """Return the offset behind the last record of a partition."""
    return PartitionReader(kafka, topic, shard).ends()[1]
