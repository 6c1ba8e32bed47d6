"""Everything one seed needs: time, Kafka, the exchange, and the processes that use them."""

import asyncio
import random
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from k2.kafka.topics import TopicNames
from simulation.world.exchange_rest import SimRest
from simulation.world.exchange_world import ExchangeWorld
from simulation.world.kafka_world import KafkaWorld
from simulation.world.node import Node, NodeClock, NodeState
from simulation.world.virtual_time import VirtualTimeLoop, virtual_time

RESTART_MIN_S = 0.5
RESTART_MAX_S = 5.0


@dataclass
class Process:
    """One incarnation of an instance: what its ``main`` is given instead of the real world."""

    instance: "Instance"
    node: Node
    clock: NodeClock
    rng: random.Random
    rest: SimRest
    kafka: KafkaWorld
    """``producer`` and ``consumer`` stand in for confluent_kafka's classes."""
    exchange: ExchangeWorld
    """``connect`` opens a WebSocket."""
    stop: asyncio.Event
    """Set by SIGTERM."""
    change_role: Callable[[str], None] | None = None
    """An operator's signals, if ``main`` takes any: be a member (``auto``) or an ``observer``."""


Main = Callable[[Process], Coroutine[Any, Any, Any]]


@dataclass
class Exit:
    """How an incarnation ended by itself."""

    at_s: float
    result: Any
    error: BaseException | None
    asked: bool
    """Whether it was sent SIGTERM."""


class Instance:
    """A process with a supervisor that starts it again, whatever it ended with."""

    def __init__(self, world: "World", name: str, main: Main) -> None:
        """Name it; nothing runs before ``start``."""
        self.name = name
        self.exits: list[Exit] = []
        self.process: Process | None = None
        self.restarts = True
        self._world = world
        self._main = main
        self._start_due: asyncio.TimerHandle | None = None
        self.wall_offset_ns = 0

    @property
    def node(self) -> Node | None:
        """The incarnation that runs or is frozen, if any."""
        return None if self.process is None else self.process.node

    @property
    def running(self) -> bool:
        """Whether it runs now."""
        return self.node is not None and self.node.state is NodeState.RUNNING

    def start(self) -> None:
        """Start an incarnation, unless there is one."""
        self._start_due = None
        if self.process is not None:
            return
        world = self._world
        node = world.loop.node(self.name, wall_offset_ns=self.wall_offset_ns)
        self.process = Process(
            instance=self,
            node=node,
            clock=NodeClock(world.loop, node),
            rng=random.Random(world.rng.random()),
            rest=world.exchange.rest(node),
            kafka=world.kafka,
            exchange=world.exchange,
            stop=asyncio.Event(),
        )
        task = world.loop.spawn(node, self._main(self.process))
        # Heard by the world, not by the node: a dead process restarts nothing.
        task.add_done_callback(self._ended, context=world.loop.world_context)

    def start_after(self, seconds: float) -> None:
        """Start an incarnation later, or at that time instead of another one."""
        if self._start_due is not None:
            self._start_due.cancel()
        self._start_due = self._world.loop.call_world(seconds, self.start)

    def crash(self, *, down_s: float) -> None:
        """SIGKILL, and start again after a while."""
        if self.process is not None:
            node, self.process = self.process.node, None
            self._world.loop.kill(node)
        self.start_after(down_s)

    def freeze(self, *, for_s: float) -> None:
        """SIGSTOP, and SIGCONT after a while."""
        if self.running and self.node is not None:
            node = self.node
            self._world.loop.freeze(node)
            self._world.loop.call_world(for_s, self._world.loop.thaw, node)

    def terminate(self) -> None:
        """SIGTERM."""
        if self.process is not None:
            self.process.stop.set()

    def change_role(self, role: str) -> bool:
        """Send the signal that changes the role; say whether anybody heard it."""
        if self.process is None or self.process.change_role is None:
            return False
        self.process.change_role(role)
        return True

    def jump(self, *, by_ns: int) -> None:
        """Let its wall clock jump; it stays off across restarts, as the machine's would."""
        self.wall_offset_ns += by_ns
        if self.node is not None:
            self.node.wall_offset_ns = self.wall_offset_ns

    def _ended(self, task: "asyncio.Task[Any]") -> None:
        if self.process is None:
            return
        error = None if task.cancelled() else task.exception()
        result = None if task.cancelled() or error is not None else task.result()
        asked = self.process.stop.is_set()
        self.exits.append(Exit(self._world.loop.time(), result, error, asked))
        node, self.process = self.process.node, None
        self._world.loop.kill(node)
        if self.restarts:
            self.start_after(self._world.rng.uniform(RESTART_MIN_S, RESTART_MAX_S))


@dataclass
class World:
    """One seed's world."""

    seed: int
    loop: VirtualTimeLoop
    rng: random.Random
    kafka: KafkaWorld
    exchange: ExchangeWorld
    topics: TopicNames
    instances: list[Instance] = field(default_factory=list)

    def add_instance(self, name: str, main: Main) -> Instance:
        """Add a process; start it with ``start``."""
        instance = Instance(self, name, main)
        self.instances.append(instance)
        return instance

    def run(self, *, for_s: float) -> None:
        """Let virtual time pass."""
        self.loop.run_until_complete(asyncio.sleep(for_s))

    def run_until(self, true: Callable[[], bool], *, within_s: float, every_s: float = 0.5) -> bool:
        """Let virtual time pass until something is true; say whether it became so in time."""
        end_s = self.loop.time() + within_s
        while not true():
            if self.loop.time() >= end_s:
                return False
            self.run(for_s=every_s)
        return True


@contextmanager
def simulated_world(
    seed: int,
    *,
    rates_per_s: Mapping[str, float],
    shards: int = 1,
    topics: TopicNames | None = None,
    burst_share: float = 0.01,
) -> Iterator[World]:
    """Provide a world with empty topics and an exchange that does not trade yet."""
    rng = random.Random(seed)
    topics = topics or TopicNames.of("simulated")
    with virtual_time() as loop:
        kafka = KafkaWorld(loop, random.Random(rng.random()))
        for topic in (topics.trades, topics.gaps, topics.repairs, topics.lease):
            kafka.create_topic(topic, partitions=shards)
        kafka.create_topic(topics.positions, partitions=shards, compacted=True)
        exchange = ExchangeWorld(
            loop,
            random.Random(rng.random()),
            rates_per_s=rates_per_s,
            burst_share=burst_share,
        )
        yield World(seed, loop, rng, kafka, exchange, topics)
