"""A standby's eyes on the writer's work: the trades of one shard as they are committed."""

from typing import Any

from confluent_kafka import OFFSET_END, KafkaException, TopicPartition

from k2.errors import RejectError, RetryError
from k2.kafka.clients import LIBRARY, Clients
from k2.kafka.connection import KafkaConnection
from k2.kafka.encoding import SCHEMA_TEXT, decode_record, parse_schema, split_wire

RECORDS_PER_READ = 2_000


class TradeFollower:
    """Reads one partition of the trades topic from now on; committed records only.

    Blocking, for one thread.
    """

    def __init__(
        self, kafka: KafkaConnection, *, trades_topic: str, shard: int, clients: Clients = LIBRARY
    ) -> None:
        """Name the partition; nothing is contacted before ``read``."""
        self._kafka = kafka
        self._settings: dict[str, Any] = {
            "group.id": "k2-trade-follower",  # assign() only: the group is never joined
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "fetch.wait.max.ms": 100,
            "reconnect.backoff.max.ms": 1_000,
            "log_level": 2,
        }
        self._partition = TopicPartition(trades_topic, shard, OFFSET_END)
        self._make = clients.consumer
        self._schema = parse_schema(SCHEMA_TEXT)
        self._consumer: Any = None

    def read(self, timeout_s: float) -> list[dict[str, Any]]:
        """Return the records that have come since, decoded; foreign ones are passed over.

        Raises:
            RetryError: If Kafka cannot be read.
        """
        try:
            if self._consumer is None:
                self._consumer = self._make(self._kafka.client(self._settings))
                self._consumer.assign([self._partition])
            messages = self._consumer.consume(RECORDS_PER_READ, timeout_s)
        except KafkaException as exc:
            self.close()
            raise RetryError(f"{self._partition.topic} cannot be read: {exc}") from exc
        records = []
        for message in messages:
            if message.error() is not None:
                continue
            try:
                records.append(decode_record(split_wire(message.value())[1], self._schema))
            except RejectError:
                continue
        return records

    def close(self) -> None:
        """Leave Kafka; the next ``read`` begins at the end again."""
        if self._consumer is not None:
            self._consumer.close()
            self._consumer = None
