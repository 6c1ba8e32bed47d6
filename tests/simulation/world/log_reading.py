"""Reading the simulated logs as any consumer would."""

from typing import Any

import msgspec

from k2.kafka.topics import TopicNames
from simulation.world.kafka_log import Entry, PartitionLog
from simulation.world.kafka_world import KafkaWorld

from_json = msgspec.json.Decoder().decode


def committed(log: PartitionLog) -> list[Entry]:
    """Return what a `read_committed` consumer sees."""
    return log.read(0, limit=10**9, committed=True)[0]


def value_of(entry: Entry) -> bytes:
    """Return a record's value."""
    assert entry.record is not None
    return entry.record.value or b""


def written_s(entry: Entry) -> float:
    """Return when a record was written, in virtual time."""
    assert entry.record is not None
    return entry.record.written_s


def _is_position(entry: Entry) -> bool:
    return entry.record is not None and entry.record.key == b"position"


def first_positions(log: PartitionLog) -> dict[str, int]:
    """Return where each symbol of a shard began, as the position said before its first trade.

    "From its very first trade, whatever its id" is told as next id 0, and says nothing yet.
    """
    starts: dict[str, int] = {}
    for entry in filter(_is_position, [*log.compacted_away, *committed(log)]):
        for symbol, where in from_json(value_of(entry))["symbols"].items():
            if where["last_id"] is None and where["next_id"] > 0:
                starts.setdefault(symbol, where["next_id"])
    return starts


def last_positions(kafka: KafkaWorld, topics: TopicNames) -> dict[str, dict[str, Any]]:
    """Return where every symbol stands."""
    position: dict[str, dict[str, Any]] = {}
    for partition in range(kafka.partitions_of(topics.positions)):
        position |= last_position(kafka.logs[topics.positions, partition]).get("symbols", {})
    return position


def last_position(log: PartitionLog) -> dict[str, Any]:
    """Return what the newest position of a shard says; empty if there is none."""
    for entry in filter(_is_position, reversed(committed(log))):
        position: dict[str, Any] = from_json(value_of(entry))
        return position
    return {}
