"""A standby's eyes on one shard: its ``.positions`` as they are written, and where logs end.

Blocking. Clients stay connected between calls, because a take-over has no time to connect.
"""

import time
from collections.abc import Callable
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, KafkaError, TopicPartition

from k2.errors import RetryError
from k2.kafka.clients import LIBRARY, Clients
from k2.kafka.connection import KafkaConnection
from k2.kafka.position import ShardRecord
from k2.kafka.positions import PositionIntake
from k2.kafka.rights import explained
from k2.kafka.watermarks import watermarks

ASK_TIMEOUT_S = 5.0

FETCH_WAIT_MS = 20
"""How far a follower is behind: a commit does not end the wait of a ``read_committed`` fetch, which
lasts its whole time (measured, Kafka 4; librdkafka's default is 500)."""

_LIBRARY_SETTINGS: dict[str, Any] = {
    "group.id": "k2-shard-reader",  # assign() only: the group is never joined
    "enable.auto.commit": False,
    "reconnect.backoff.max.ms": 1_000,
    "log_level": 2,  # what goes wrong is said by the caller, in its own words
}


class ShardFollower:
    """Tails one partition of ``.positions``; committed records only. For one thread.

    It has seen everything once ``next_offset`` has reached a high watermark that was asked for
    after ``init_transactions``: no transaction of the shard is open then.
    """

    def __init__(
        self,
        kafka: KafkaConnection,
        *,
        positions_topic: str,
        shard: int,
        clients: Clients = LIBRARY,
        poll_s: float = 1.0,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Name the partition; nothing is contacted before ``follow``."""
        self.next_offset = 0
        """Everything below it has been read, transaction markers included."""
        self.last_written_ms: int | None = None
        """When the last record was written, by its writer's clock: unix time in ms."""
        self._kafka = kafka
        self._settings = _LIBRARY_SETTINGS | {
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
            # Offsets that are gone mean another log: it is read anew, not from some place in it.
            "auto.offset.reset": "error",
            "fetch.queue.backoff.ms": 1,
            "fetch.wait.max.ms": FETCH_WAIT_MS,
        }
        self._partition = TopicPartition(positions_topic, shard, OFFSET_BEGINNING)
        self._make = clients.consumer
        self._poll_s = poll_s
        self._monotonic_s = monotonic_s
        self._consumer: Any = None
        self._intake = PositionIntake()
        self._before: ShardRecord | None = None
        """What an earlier consumer had read, until this one has seen the end: half a reading
        would tell of symbols that left, and of tapes that went back."""
        self._at_end = False
        self._told = self._intake.record

    @property
    def record(self) -> ShardRecord:
        """What has been read so far; never less than once was."""
        before = self._before  # read once: the follower's thread may catch up in between
        return self._intake.record if before is None else before

    @property
    def behind(self) -> bool:
        """Whether it reads again what it had read before."""
        return self._before is not None

    def follow(self) -> bool:
        """Wait for something new, ``poll_s`` at most, and take in everything there is.

        Returns:
            Whether the end was reached and ``record`` is not what it was at the end before.

        Raises:
            StopError: If the last position or identity is not one.
            RetryError: If Kafka cannot be read; the next call reads from the beginning. A broker
                that is away is waited for instead: ``EndAsker`` notices it.
        """
        consumer = self._opened()
        deadline_s = self._monotonic_s() + self._poll_s
        left_s = self._poll_s
        while left_s > 0:
            message = consumer.poll(left_s)
            if message is None or self._take(message):
                break
            left_s = deadline_s - self._monotonic_s()
        if not self._at_end:
            return False  # what is on its way is the past, not news
        self._intake.check()
        before, self._told = self._told, self.record
        return self._told != before

    def close(self) -> None:
        """Leave Kafka; what was read stays."""
        if self._consumer is not None:
            self._consumer.close()
            self._consumer = None

    def _opened(self) -> Any:
        if self._consumer is None:
            self._begin_anew()
            self._consumer = self._make(self._kafka.client(self._settings))
            self._consumer.assign([self._partition])
        return self._consumer

    def _begin_anew(self) -> None:
        if self.next_offset:
            self._before = self.record
        self._intake = PositionIntake()
        self.next_offset = 0
        self._at_end = False

    def _take(self, message: Any) -> bool:
        """Take in a message; say whether the end was reached."""
        problem = message.error()
        if problem is None:
            self._intake.take(message)
            self.last_written_ms = message.timestamp()[1]
            self.next_offset = message.offset() + 1
            self._at_end = False
        elif problem.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - the library's name
            self.next_offset = max(self.next_offset, message.offset())
            self._before = None
            self._at_end = True
        elif not problem.retriable():
            self.close()
            self._begin_anew()
            raise RetryError(f"Kafka cannot read {self._partition.topic}: {explained(problem)}")
        return self._at_end


class EndAsker:
    """Asks where partitions end. For one thread."""

    def __init__(self, kafka: KafkaConnection, *, clients: Clients = LIBRARY) -> None:
        """Name Kafka; each kind of end has a client of its own, made when first asked for."""
        self._kafka = kafka
        self._make = clients.consumer
        self._consumers: dict[str, Any] = {}

    def high_watermark(self, topic: str, partition: int) -> int:
        """Return the offset behind the last record, committed or not.

        Raises:
            RetryError: If Kafka does not say.
        """
        return self._end(topic, partition, isolation="read_uncommitted")

    def last_stable_offset(self, topic: str, partition: int) -> int:
        """Return the first offset of an open transaction; the high watermark if there is none.

        Raises:
            RetryError: If Kafka does not say.
        """
        return self._end(topic, partition, isolation="read_committed")

    def close(self) -> None:
        """Leave Kafka."""
        for consumer in self._consumers.values():
            consumer.close()
        self._consumers.clear()

    def _end(self, topic: str, partition: int, *, isolation: str) -> int:
        # librdkafka takes the isolation of this question from the client's settings.
        if isolation not in self._consumers:
            settings = _LIBRARY_SETTINGS | {"isolation.level": isolation}
            self._consumers[isolation] = self._make(self._kafka.client(settings))
        consumer = self._consumers[isolation]
        return watermarks(consumer, topic, partition, timeout_s=ASK_TIMEOUT_S)[1]
