"""What a consumer's own threads do: fetching, up to the end its isolation level lets it see."""

from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    KafkaError,
    KafkaException,
    TopicPartition,
)

from simulation.world.kafka_errors import BrokerError, Message
from simulation.world.kafka_log import Entry, PartitionLog
from simulation.world.node import Node

if TYPE_CHECKING:
    from simulation.world.kafka_world import KafkaWorld

FETCH_RECORDS = 500
Slot = tuple[str, int]
"""Topic and partition."""


class Fetcher:
    """One consumer's fetches, as callbacks of its node. ``messages`` is what they brought."""

    def __init__(
        self,
        kafka: "KafkaWorld",
        node: Node,
        config: Mapping[str, Any],
        *,
        arrived: Callable[[], None],
    ) -> None:
        """Read nothing yet; ``arrived`` is called when there is something in ``messages``."""
        self.messages: deque[Message] = deque()
        self.offsets: dict[Slot, int] = {}
        """Where the next fetch of each partition starts."""
        self.committed = config.get("isolation.level", "read_committed") == "read_committed"
        self._kafka = kafka
        self._node = node
        self._arrived = arrived
        self._tells_end = bool(config.get("enable.partition.eof", False))
        self._reset = str(config.get("auto.offset.reset", "latest"))
        self._from_start = self._reset in ("earliest", "smallest")
        self._fetch_wait_s = float(config.get("fetch.wait.max.ms", 500)) / 1000
        self._told_end: dict[Slot, int] = {}
        self._fetching: set[Slot] = set()
        self._watching: dict[Slot, tuple[PartitionLog, Callable[[], None]]] = {}

    def log(self, slot: Slot) -> PartitionLog:
        """Return a partition's log.

        Raises:
            KafkaException: If there is no such partition.
        """
        log = self._kafka.logs.get(slot)
        if log is None:
            raise KafkaException(KafkaError(KafkaError._UNKNOWN_PARTITION))
        return log

    def take(self, wanted: TopicPartition) -> None:
        """Read a partition from an offset on."""
        slot = (wanted.topic, wanted.partition)
        log = self.log(slot)
        end = log.end(committed=self.committed)
        offset = wanted.offset
        if offset == OFFSET_BEGINNING or (offset < 0 and offset != OFFSET_END and self._from_start):
            offset = log.first_offset
        elif offset < 0:
            offset = end
        self.offsets[slot] = offset

        def changed() -> None:
            self._fetch(slot, late=self.committed)

        self._watching[slot] = (log, changed)
        log.watchers.append(changed)
        self._fetch(slot)

    def drop(self, slot: Slot) -> None:
        """Read a partition no more; what was fetched of it is gone."""
        if self.offsets.pop(slot, None) is None:
            return
        log, changed = self._watching.pop(slot)
        log.watchers.remove(changed)
        self._told_end.pop(slot, None)
        self._fetching.discard(slot)
        kept = (m for m in self.messages if (m.topic(), m.partition()) != slot)
        self.messages = deque(kept)

    def _fetch(self, slot: Slot, *, late: bool = False) -> None:
        """Ask for what follows, unless that is under way or there is nothing to be told."""
        offset = self.offsets[slot]
        log = self._kafka.logs[slot]
        told = not self._tells_end or self._told_end.get(slot) == offset
        at_end = log.end(committed=self.committed) <= offset <= log.high_watermark
        nothing_new = at_end and told
        if slot in self._fetching or nothing_new or not self._node.alive:
            return
        self._fetching.add(slot)

        def read() -> tuple[list[Entry], int]:
            log = self._kafka.logs[slot]
            if offset > log.high_watermark:
                raise BrokerError(KafkaError.OFFSET_OUT_OF_RANGE)
            return log.read(offset, limit=FETCH_RECORDS, committed=self.committed)

        def answer(found: tuple[list[Entry], int] | None, _: object) -> None:
            # Assigned anew since: another fetch, from another offset, is under way.
            if slot not in self._fetching or self.offsets.get(slot) != offset:
                return
            self._fetching.discard(slot)
            if found is None:
                self._out_of_range(slot)
            else:
                self._keep(slot, *found)

        # A commit does not end the wait of a committed reader's fetch: it lasts its whole time.
        wait_s = self._kafka.rng.uniform(0, self._fetch_wait_s) if late else 0.0
        self._kafka.tell(self._node, wait_s, self._kafka.ask, self._node, read, answer)

    def _out_of_range(self, slot: Slot) -> None:
        """The log is another one: begin anew, or say so where that was asked for."""
        log = self._kafka.logs[slot]
        self._watching[slot] = (log, self._watching[slot][1])
        if self._reset == "error":
            self.drop(slot)
            error = KafkaError(KafkaError._AUTO_OFFSET_RESET, "offset out of range")
            self.messages.append(Message(*slot, -1, error=error))
            self._arrived()
            return
        self.offsets[slot] = log.first_offset if self._from_start else log.high_watermark
        self._told_end.pop(slot, None)
        self._fetch(slot)

    def _keep(self, slot: Slot, entries: list[Entry], next_offset: int) -> None:
        topic, partition = slot
        for entry in entries:
            assert entry.record is not None
            key, value, timestamp_ms, _ = entry.record
            self.messages.append(
                Message(
                    topic,
                    partition,
                    entry.offset,
                    key=key,
                    value=value,
                    timestamp_ms=timestamp_ms,
                )
            )
        self.offsets[slot] = next_offset
        log = self._kafka.logs[slot]
        at_end = next_offset >= log.end(committed=self.committed)
        if self._tells_end and at_end and self._told_end.get(slot) != next_offset:
            self._told_end[slot] = next_offset
            error = KafkaError(KafkaError._PARTITION_EOF)
            self.messages.append(Message(topic, partition, next_offset, error=error))
        if self.messages:
            self._arrived()
        self._fetch(slot)
