"""What ``.positions`` says, for reading commands: they fence nobody and may be out of date."""

import msgspec

from k2.errors import RetryError
from k2.ingestion.kafka_reach import require_kafka
from k2.kafka.admin import KafkaAdmin
from k2.kafka.connection import KafkaConnection
from k2.kafka.position import ShardRecord
from k2.kafka.positions import read_shard
from k2.kafka.topics import TopicFacts, TopicNames, describe_topics
from k2.settings import Settings


class ShardShown(msgspec.Struct, frozen=True):
    """One shard's record, as ``k2 positions show`` prints it."""

    shard: int
    record: ShardRecord


class Room(msgspec.Struct, frozen=True):
    """The topics of one tape, as Kafka has them."""

    kafka: KafkaConnection
    names: TopicNames
    facts: dict[str, TopicFacts]
    """Of those that exist."""

    @property
    def partitions(self) -> int:
        """How many shards there are."""
        return self.facts[self.names.trades].partitions

    def record(self, shard: int) -> ShardRecord:
        """Return what ``.positions`` says of a shard now.

        Raises:
            RetryError: If Kafka cannot be read.
            StopError: If it says something that is no position.
        """
        return read_shard(
            self.kafka,
            positions_topic=self.names.positions,
            shard=shard,
            isolation="read_committed",
        )


def find_room(settings: Settings) -> Room:
    """Return the tape's topics.

    Raises:
        RetryError: If Kafka cannot be reached or nothing was ever recorded there.
    """
    names = TopicNames.of(settings.topic_prefix)
    require_kafka(settings.kafka_bootstrap)
    try:
        facts = describe_topics(KafkaAdmin(settings.kafka), names.all())
    except RetryError as exc:
        raise RetryError(f"{settings.kafka_bootstrap}: {exc}") from exc
    if not {names.trades, names.positions, names.gaps} <= facts.keys():
        raise RetryError(
            f"the topics of {names.trades} do not exist at {settings.kafka_bootstrap}: "
            "`k2 up` or `k2 stream` creates them"
        )
    return Room(settings.kafka, names, facts)


def show_positions(settings: Settings) -> list[ShardShown]:
    """Return what ``.positions`` says of every shard; fences nobody.

    Raises:
        RetryError: If Kafka cannot be reached or the topics do not exist.
    """
    room = find_room(settings)
    return [ShardShown(shard, room.record(shard)) for shard in range(room.partitions)]
