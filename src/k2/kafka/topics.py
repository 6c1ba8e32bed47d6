"""The topics beside one another: their names, their settings, and what the broker says of them.

Partition k of every one of them belongs to shard k; a shard is one partition for ever.
"""

from collections.abc import Iterable
from typing import Any

import msgspec
from confluent_kafka import KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from k2.errors import RetryError, StopError
from k2.kafka.admin import answered, unreachable
from k2.kafka.rights import explained

ADMIN_TIMEOUT_S = 5.0

# The whole tape stays in Kafka until the operator says otherwise; the lake is the long memory.
_FOREVER = {"retention.ms": "-1", "retention.bytes": "-1"}
_SETTINGS: dict[str, dict[str, str]] = {
    "trades": {"retention.ms": str(7 * 24 * 3600 * 1000), "compression.type": "producer"},
    # Small segments keep compaction ahead of 20 records a second, so a successor reads little.
    "positions": {
        "cleanup.policy": "compact",
        "segment.bytes": str(1 << 20),
        "min.cleanable.dirty.ratio": "0.1",
    },
    "gaps": _FOREVER,
    "repairs": _FOREVER | {"compression.type": "producer"},
    # Never a record: its partitions are what the consumer group shares out.
    "lease": {},
    # A month of dead letters, and never more than 256 MiB per partition, whatever comes in.
    "dlq": {
        "retention.ms": str(30 * 24 * 3600 * 1000),
        "retention.bytes": str(256 << 20),
        "segment.bytes": str(16 << 20),
        "max.message.bytes": str(4 << 20),
        "compression.type": "producer",
    },
}


class TopicNames(msgspec.Struct, frozen=True):
    """Names derived from ``KAFKA_TOPIC_PREFIX`` (contract R140, C1)."""

    trades: str
    positions: str
    gaps: str
    repairs: str
    lease: str
    dlq: str

    @classmethod
    def of(cls, prefix: str) -> "TopicNames":
        """Return the names under ``prefix``, such as ``market.crypto.trades``."""
        trades = f"{prefix}.binance"
        beside = (f"{trades}.{use}" for use in ("positions", "gaps", "repairs", "lease", "dlq"))
        return cls(trades, *beside)

    @property
    def subject(self) -> str:
        """The registry subject of the trades topic's values."""
        return f"{self.trades}-value"

    @property
    def repairs_subject(self) -> str:
        """The registry subject of the repairs topic's values: the same schema."""
        return f"{self.repairs}-value"

    def all(self) -> tuple[str, ...]:
        """Return every name; each topic has the same partition count."""
        return msgspec.structs.astuple(self)


class TopicFacts(msgspec.Struct, frozen=True):
    """What the broker says a topic is."""

    topic_id: str
    partitions: int


def create_topics(admin: AdminClient, names: TopicNames, *, shards: int) -> list[str]:
    """Create what is absent; return the names created.

    Beside a trades topic that is there already, the others get its partition count: they belong
    to its shards, whatever ``shards`` says today.

    Raises:
        RetryError: If the broker cannot be reached or refuses.
    """
    present = _metadata(admin).topics
    partitions = len(present[names.trades].partitions) if names.trades in present else shards
    new = [
        NewTopic(topic, num_partitions=partitions, config=_SETTINGS[use])
        for use, topic in msgspec.structs.asdict(names).items()
        if topic not in present
    ]
    if not new:
        return []
    for topic, future in admin.create_topics(
        new, operation_timeout=ADMIN_TIMEOUT_S, request_timeout=ADMIN_TIMEOUT_S
    ).items():
        try:
            answered(future, request_timeout_s=ADMIN_TIMEOUT_S)
        except KafkaException as exc:
            if exc.args[0].name() != "TOPIC_ALREADY_EXISTS":
                raise RetryError(
                    f"Kafka did not create topic {topic}: {explained(exc.args[0])}"
                ) from exc
    return [topic.topic for topic in new]


def describe_topics(admin: AdminClient, topics: Iterable[str]) -> dict[str, TopicFacts]:
    """Return id and partition count of each topic that exists.

    Raises:
        RetryError: If the broker cannot be reached.
    """
    present = set(_metadata(admin).topics)
    wanted = [topic for topic in topics if topic in present]
    if not wanted:
        return {}
    facts = {}
    for topic, future in admin.describe_topics(
        TopicCollection(wanted), request_timeout=ADMIN_TIMEOUT_S
    ).items():
        try:
            description = answered(future, request_timeout_s=ADMIN_TIMEOUT_S)
        except KafkaException as exc:
            raise RetryError(f"Kafka did not describe {topic}: {explained(exc.args[0])}") from exc
        facts[topic] = TopicFacts(str(description.topic_id), len(description.partitions))
    return facts


def topic_facts(admin: AdminClient, names: TopicNames) -> dict[str, TopicFacts]:
    """Return what the broker says of the topics.

    Raises:
        RetryError: If one is not there (yet).
        StopError: If their partition counts differ: a shard is one partition of each.
    """
    facts = describe_topics(admin, names.all())
    # No shard's tape is in the dead letters: nobody waits for them.
    facts.pop(names.dlq, None)
    if absent := [topic for topic in names.all() if topic not in facts and topic != names.dlq]:
        raise RetryError(f"topic {', '.join(absent)} does not exist: `k2 stream` creates it")
    if len({fact.partitions for fact in facts.values()}) > 1:
        counts = ", ".join(f"{topic} {fact.partitions}" for topic, fact in facts.items())
        raise StopError(
            f"the topics have different partition counts: {counts}. A shard is one partition of "
            "each: delete the odd one while it is empty, or set KAFKA_TOPIC_PREFIX"
        )
    return facts


def _metadata(admin: AdminClient) -> Any:
    try:
        return admin.list_topics(timeout=ADMIN_TIMEOUT_S)
    except KafkaException as exc:
        raise RetryError(unreachable(admin, exc)) from exc
