"""What keeps an archive from reading a topic, and asking whether it still does."""

import time
from collections.abc import Iterator, Mapping
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicPartition

from k2.ingestion.trouble import Trouble
from k2.kafka.rights import explained

ASK_AGAIN_S = 2.0


class ReadingTrouble:
    """The partitions of a topic that Kafka does not give out.

    The library says so once, and once a partition's end was told it is not told again: that a
    right was given back on a quiet topic shows only to whoever asks for the same place anew.
    """

    def __init__(self, topic: str) -> None:
        """Begin well."""
        self._topic = topic
        self._refused: dict[int, str] = {}
        self._unreadable = Trouble("topic_not_readable", time.monotonic, topic=topic)
        self._complaint = Trouble("kafka_complains", time.monotonic, topic=topic)
        self._ask_at_s = 0.0

    @property
    def reason(self) -> str:
        """Why records are not given out; nothing when they are."""
        return next(iter(self._refused.values()), "")

    def met(self, problem: KafkaError, *, topic: str | None, partition: int) -> None:
        """Take note of an error event, of a partition or of something else (the group, brokers)."""
        reason = explained(problem)
        if topic is None or partition < 0:
            self._complaint.met(reason)
            return
        self._refused[partition] = reason
        self._unreadable.met(reason)

    def read(self, partition: int) -> None:
        """A record of a partition came, or its end."""
        self._complaint.over()
        if self._refused.pop(partition, None) is not None and not self._refused:
            self._unreadable.over()

    def ask_again(self, consumer: Any, places: Mapping[int, int]) -> None:
        """Ask for what is refused, now and then: by partition, the offset to go on from."""
        now_s = time.monotonic()
        if not self._refused or now_s < self._ask_at_s:
            return
        self._ask_at_s = now_s + ASK_AGAIN_S
        for place in self._refused_at(places):
            try:
                consumer.seek(place)
            except KafkaException as exc:  # not being fetched just now: the next time
                self._complaint.met(exc.args[0].str())

    def _refused_at(self, places: Mapping[int, int]) -> Iterator[TopicPartition]:
        for partition in self._refused:
            yield TopicPartition(self._topic, partition, places[partition])
