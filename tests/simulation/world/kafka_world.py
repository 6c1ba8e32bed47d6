"""The simulated Kafka: one broker's logs, transactions and groups, shared by all nodes."""

import random
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from simulation.world.kafka_consumer import SimConsumer
from simulation.world.kafka_errors import BrokerError
from simulation.world.kafka_faults import KafkaFaults
from simulation.world.kafka_groups import GroupCoordinator
from simulation.world.kafka_log import Outcome, PartitionLog, Transaction, Written
from simulation.world.kafka_producer import SimProducer
from simulation.world.kafka_transactions import Coordinator
from simulation.world.node import EPOCH_NS, Node, current_node
from simulation.world.virtual_time import VirtualTimeLoop

R = TypeVar("R")

HOP_MIN_S = 0.0005
HOP_MAX_S = 0.003


class KafkaWorld:
    """The broker, and the network to it. ``up`` is changed by ``go_down`` and ``come_up`` only."""

    def __init__(
        self, loop: VirtualTimeLoop, rng: random.Random, *, faults: KafkaFaults | None = None
    ) -> None:
        """Be up and empty."""
        self.loop = loop
        self.rng = rng
        self.faults = faults or KafkaFaults()
        self.up = True
        self.unreadable_until_s: dict[str, float] = {}
        """Topic to when the right to read it is given back."""
        self.went_down_s = float("-inf")
        self.logs: dict[tuple[str, int], PartitionLog] = {}
        self.transactions = Coordinator(loop, rng, when_up=self.when_up)
        self.groups = GroupCoordinator(self)
        self._partitions: dict[str, int] = {}
        self._when_up: list[Callable[[], None]] = []
        self._producers: dict[tuple[Node, str], SimProducer] = {}

    # What the wiring is given.

    def producer(self, config: Mapping[str, Any], logger: object = None) -> SimProducer:
        """Stand in for ``confluent_kafka.Producer``; belongs to the node that calls."""
        del logger
        return SimProducer(self, current_node(), config)

    def consumer(self, config: Mapping[str, Any], logger: object = None) -> SimConsumer:
        """Stand in for ``confluent_kafka.Consumer``; belongs to the node that calls."""
        del logger
        return SimConsumer(self, current_node(), config)

    # What a test sets up.

    def create_topic(self, topic: str, *, partitions: int = 1, compacted: bool = False) -> None:
        """Create a topic."""
        self._partitions[topic] = partitions
        for partition in range(partitions):
            log = PartitionLog(topic, partition, compacted=compacted)
            self.logs[topic, partition] = log

    def empty_topic(self, topic: str) -> None:
        """Delete a topic and create it anew: its records are gone."""
        old = [self.logs[topic, partition] for partition in range(self._partitions[topic])]
        self.create_topic(topic, partitions=len(old), compacted=old[0].compacted)
        for log in old:
            self.logs[topic, log.partition].watchers = log.watchers

    def partitions_of(self, topic: str) -> int:
        """Return a topic's partition count, 0 if it does not exist."""
        return self._partitions.get(topic, 0)

    @property
    def topics(self) -> dict[str, int]:
        """Topic to partition count."""
        return dict(self._partitions)

    def go_down(self) -> None:
        """Stop answering; logs and decisions survive."""
        if self.up:
            self.up = False
            self.went_down_s = self.loop.time()
            self.groups.broker_went_down()

    def come_up(self) -> None:
        """Answer again: what clients kept asking arrives now."""
        if not self.up:
            self.up = True
            waiting, self._when_up = self._when_up, []
            self.groups.broker_came_up()
            for call in waiting:
                self.loop.call_world(self.rng.uniform(0.02, 0.3), self.when_up, call)

    def hold_back(self, topic: str, partition: int, *, for_s: float) -> None:
        """Let a stranger's transaction stay open on a partition: its stable offset stands still."""
        transaction = Transaction(0)
        log = self.logs[topic, partition]
        log.append([self.record(None, b"stranger", b"")], transaction)

        def give_up() -> None:
            transaction.outcome = Outcome.ABORTED
            log.mark(transaction)

        self.loop.call_world(for_s, self.when_up, give_up)

    # What producers, consumers and coordinators use.

    def initialising(self, producer: SimProducer, node: Node) -> None:
        """Destroy the instance a node used before: whoever initialises another has dropped it."""
        slot = (node, producer.transactional_id)
        if (older := self._producers.get(slot)) is not None and older is not producer:
            older.close()
        self._producers[slot] = producer

    def hop_s(self) -> float:
        """Draw the time of one way over the network."""
        return HOP_MIN_S + (HOP_MAX_S - HOP_MIN_S) * self.rng.random()

    def record(self, node: Node | None, key: bytes | None, value: bytes | None) -> Written:
        """Return a record stamped with a node's wall clock."""
        now_s = self.loop.time()
        offset_ns = 0 if node is None else node.wall_offset_ns
        return Written(key, value, (EPOCH_NS + offset_ns) // 10**6 + round(now_s * 1e3), now_s)

    def when_up(self, call: Callable[[], None]) -> None:
        """Call now, or when the broker is back."""
        if self.up:
            call()
        else:
            self._when_up.append(call)

    def tell(self, node: Node, delay_s: float, call: Callable[..., object], *args: Any) -> None:
        """Call on a library thread of a node: later if it is frozen, never if it is dead."""
        self.loop.call_at(self.loop.time() + delay_s, call, *args, context=node.context)

    def ask(
        self,
        node: Node,
        handle: Callable[[], R],
        answer: Callable[[R | None, BrokerError | None], None],
    ) -> None:
        """Send a request; its answer comes back on a library thread of the node.

        While the broker is down the library keeps asking, so the request arrives later.
        """
        self.loop.call_world(self.hop_s(), self._arrive, node, handle, answer)

    def send(self, handle: Callable[[], object]) -> None:
        """Send a request whose answer is lost, or that nobody waits for."""
        self.loop.call_world(self.hop_s(), self._arrive, None, handle, None)

    def _arrive(self, node: Node | None, handle: Callable[[], R], answer: Any) -> None:
        if not self.up:
            if node is not None:
                # Asked again when the broker is back: by the node, so not while it is frozen.
                again = (0.0, self.ask, node, handle, answer)
                self._when_up.append(lambda: self.tell(node, *again))
            return
        try:
            result, error = handle(), None
        except BrokerError as exc:
            result, error = None, exc
        if answer is not None and node is not None:
            self.tell(node, self.hop_s(), answer, result, error)
