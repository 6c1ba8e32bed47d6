"""A consumer with confluent_kafka's interface: assigned by hand, or a member of a group.

Fetching and heartbeats are the library's own work: callbacks of the node, or facts about it.
``poll(0)`` never blocks and may be called on the event loop; any other timeout needs a greenlet.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from confluent_kafka import (
    OFFSET_INVALID,
    KafkaError,
    KafkaException,
    TopicPartition,
)

from simulation.world.blocking import running_loop, wait_for
from simulation.world.kafka_errors import Message, unreachable
from simulation.world.kafka_fetcher import Fetcher, Slot
from simulation.world.kafka_member import GroupEvent, Member
from simulation.world.kafka_producer import metadata
from simulation.world.node import Node

if TYPE_CHECKING:
    from simulation.world.kafka_world import KafkaWorld

REFUSED_EVERY_S = 0.5

Rebalanced = Callable[["SimConsumer", list[TopicPartition]], object]


class SimConsumer:
    """One instance, of one node."""

    def __init__(self, kafka: "KafkaWorld", node: Node, config: Mapping[str, Any]) -> None:
        self._kafka = kafka
        self._node = node
        self._config = config
        self._consumed: dict[Slot, int] = {}
        self._fetcher = Fetcher(kafka, node, config, arrived=self._arrived)
        self._arrival: asyncio.Future[None] | None = None
        self._member: Member | None = None
        self._callbacks: dict[GroupEvent, Rebalanced | None] = {}
        self._closed = False
        self._refused_again_s = 0.0

    # Reading.

    def assign(self, partitions: Iterable[TopicPartition]) -> None:
        """Read these partitions, from their offsets, instead of any before."""
        self._check()
        for slot in list(self._fetcher.offsets):
            self._fetcher.drop(slot)
        for wanted in partitions:
            self._fetcher.take(wanted)

    def unassign(self) -> None:
        """Read nothing."""
        self.assign([])

    def incremental_assign(self, partitions: Iterable[TopicPartition]) -> None:
        """Read these partitions as well."""
        self._check()
        for wanted in partitions:
            self._fetcher.take(wanted)

    def incremental_unassign(self, partitions: Iterable[TopicPartition]) -> None:
        """Read these partitions no more."""
        self._check()
        for given in partitions:
            self._fetcher.drop((given.topic, given.partition))

    def assignment(self) -> list[TopicPartition]:
        """Return what is being read."""
        self._check()
        return [TopicPartition(topic, partition) for topic, partition in self._fetcher.offsets]

    def seek(self, partition: TopicPartition) -> None:
        """Go on reading from another offset."""
        self._check()
        slot = (partition.topic, partition.partition)
        if slot not in self._fetcher.offsets:
            raise KafkaException(KafkaError(KafkaError._STATE, "seek on what is not assigned"))
        self._fetcher.drop(slot)
        self._fetcher.take(partition)

    def poll(self, timeout: float = -1) -> Message | None:
        """Serve callbacks or return one message, or None when the time is up.

        It returns once it has served a callback. librdkafka's goes on waiting, which is why its
        users poll in slices; here they need not.
        """
        self._check()
        loop = running_loop()
        end_s = loop.time() + timeout if timeout >= 0 else float("inf")
        while True:
            served = self._member is not None and self._serve(self._member)
            if refused := self._refused():
                return refused
            if self._fetcher.messages:
                return self._next()
            left_s = end_s - loop.time()
            if served or left_s <= 0:
                return None
            self._wait(None if timeout < 0 else left_s)

    def consume(self, num_messages: int = 1, timeout: float = -1) -> list[Message]:
        """Return messages, once there are this many or the time is up."""
        end_s = running_loop().time() + timeout if timeout >= 0 else float("inf")
        found: list[Message] = []
        while len(found) < num_messages:
            left_s = max(0.0, end_s - running_loop().time()) if timeout >= 0 else -1
            message = self.poll(left_s)
            if message is None:
                break
            found.append(message)
        return found

    def position(self, partitions: Iterable[TopicPartition]) -> list[TopicPartition]:
        """Return the offset behind the last message given out: it does not pass markers."""
        self._check()
        return [
            TopicPartition(
                tp.topic,
                tp.partition,
                self._consumed.get((tp.topic, tp.partition), OFFSET_INVALID),
            )
            for tp in partitions
        ]

    def get_watermark_offsets(
        self, partition: TopicPartition, timeout: float = -1, cached: bool = False
    ) -> tuple[int, int]:
        """Ask the broker for the first offset and the end, as this isolation level sees it."""
        self._check()
        log = self._fetcher.log((partition.topic, partition.partition))
        if cached:
            return log.first_offset, log.end(committed=self._fetcher.committed)
        answered: asyncio.Future[tuple[int, int]] = running_loop().create_future()

        def answer(found: tuple[int, int] | None, _: object) -> None:
            if found is not None and not answered.done():
                answered.set_result(found)

        self._kafka.ask(
            self._node,
            lambda: (log.first_offset, log.end(committed=self._fetcher.committed)),
            answer,
        )
        if not wait_for(answered, timeout_s=None if timeout < 0 else timeout):
            raise unreachable("get_watermark_offsets")
        return answered.result()

    def list_topics(self, topic: str | None = None, timeout: float = -1) -> Any:
        """Return metadata."""
        self._check()
        answered: asyncio.Future[Any] = running_loop().create_future()

        def answer(found: Any, _: object) -> None:
            if not answered.done():
                answered.set_result(found)

        self._kafka.ask(self._node, self._kafka.topics.copy, answer)
        if not wait_for(answered, timeout_s=None if timeout < 0 else timeout):
            raise unreachable("list_topics")
        return metadata(answered.result(), topic)

    # The group.

    def subscribe(
        self,
        topics: list[str],
        on_assign: Rebalanced | None = None,
        on_revoke: Rebalanced | None = None,
        on_lost: Rebalanced | None = None,
    ) -> None:
        """Join the group; its decisions are served by ``poll``."""
        self._check()
        self.unsubscribe()
        self._callbacks = {
            GroupEvent.ASSIGN: on_assign,
            GroupEvent.REVOKE: on_revoke,
            GroupEvent.LOST: on_lost or on_revoke,
        }
        self._member = Member(self._kafka.groups, self._node, self._config, topics[0])
        self._member.heard = self._arrived
        self._member.join()

    def unsubscribe(self) -> None:
        """Leave the group."""
        self._check()
        member, self._member = self._member, None
        if member is not None:
            self._leave(member)

    def memberid(self) -> str | None:
        """Return this member's name in its group."""
        return None if self._member is None else self._member.name

    def close(self) -> None:
        """Leave the group at once and read nothing more."""
        if self._closed or not self._node.alive:
            return
        self.unsubscribe()
        for slot in list(self._fetcher.offsets):
            self._fetcher.drop(slot)
        self._closed = True
        self._arrived()

    def _leave(self, member: Member) -> None:
        member.leave()
        owned = [TopicPartition(member.topic, p) for p in sorted(member.served)]
        if owned:
            self._call(member, GroupEvent.REVOKE, owned)

    def _refused(self) -> Message | None:
        """Return the error of a topic that may not be read now, each half second."""
        until_s = self._kafka.unreadable_until_s
        now_s = running_loop().time()
        for topic, partition in self._fetcher.offsets:
            if until_s.get(topic, 0.0) > now_s >= self._refused_again_s:
                self._refused_again_s = now_s + REFUSED_EVERY_S
                error = KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)
                return Message(topic, partition, -1, error=error)
        return None

    def _wait(self, timeout_s: float | None) -> None:
        member = self._member
        if member is not None:
            member.in_poll = True
        self._arrival = running_loop().create_future()
        wait_for(self._arrival, timeout_s=timeout_s)
        self._arrival = None
        if member is not None:
            member.in_poll = False
        self._check()

    def _serve(self, member: Member) -> bool:
        """Tell the application what the group has decided; say whether there was anything."""
        member.polled()
        served = False
        while self._member is member and (event := member.next_event()) is not None:
            kind, numbers = event
            served = True
            if kind is GroupEvent.EXCEEDED:
                error = KafkaError(KafkaError._MAX_POLL_EXCEEDED, "max.poll.interval.ms exceeded")
                self._fetcher.messages.append(Message(member.topic, -1, -1, error=error))
                continue
            self._call(member, kind, [TopicPartition(member.topic, n) for n in numbers])
            member.settled(kind, numbers)
        return served

    def _call(self, member: Member, kind: GroupEvent, partitions: list[TopicPartition]) -> None:
        callback = self._callbacks[kind]
        if callback is not None:
            callback(self, partitions)
        # The library does it for whoever has not.
        slots = {(tp.topic, tp.partition) for tp in partitions}
        if kind is GroupEvent.ASSIGN:
            missing = [
                tp for tp in partitions if (tp.topic, tp.partition) not in self._fetcher.offsets
            ]
            self.incremental_assign(missing)
        else:
            for slot in slots:
                self._fetcher.drop(slot)

    def _check(self) -> None:
        self._node.check_alive()
        if self._closed:
            raise RuntimeError("Consumer closed")

    def _next(self) -> Message:
        message = self._fetcher.messages.popleft()
        if message.error() is None:
            self._consumed[message.topic(), message.partition()] = message.offset() + 1
        return message

    def _arrived(self) -> None:
        if self._arrival is not None and not self._arrival.done():
            self._arrival.set_result(None)
