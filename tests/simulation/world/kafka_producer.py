"""A transactional producer with confluent_kafka's interface and librdkafka's habits.

Calls block only the greenlet they are made in; what the library does meanwhile is ``Sender``'s.
"""

import asyncio
from collections.abc import Callable, Mapping
from enum import Enum
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from confluent_kafka import KafkaError, KafkaException

from simulation.world.blocking import running_loop, wait_for, wait_s
from simulation.world.kafka_errors import (
    erroneous_state,
    fatal,
    timed_out,
    unreachable,
)
from simulation.world.kafka_sender import Done, Sender
from simulation.world.node import Node

if TYPE_CHECKING:
    from simulation.world.kafka_world import KafkaWorld


class State(Enum):
    """Where the producer is, as librdkafka's transaction manager sees it."""

    NEW = "new"
    READY = "ready"
    IN_TRANSACTION = "in_transaction"
    ABORTABLE = "abortable"
    FATAL = "fatal"
    CLOSED = "closed"


class SimProducer:
    """One instance. ``transactional_id`` and timeouts come from its configuration."""

    def __init__(self, kafka: "KafkaWorld", node: Node, config: Mapping[str, Any]) -> None:
        self.transactional_id = str(config["transactional.id"])
        self.state = State.NEW
        self._kafka = kafka
        self._node = node
        self._queue_max = int(config.get("queue.buffering.max.messages", 100_000))
        self._error: KafkaError | None = None
        self._operation: tuple[str, asyncio.Future[KafkaError | None]] | None = None
        self._sender = Sender(
            kafka,
            node,
            self.transactional_id,
            timeout_s=float(config.get("transaction.timeout.ms", 60_000)) / 1000,
            failed=self._batch_refused,
        )

    # Calls of confluent_kafka.Producer.

    def list_topics(self, topic: str | None = None, timeout: float = -1) -> Any:
        """Return metadata; a producer that asked initialises faster."""
        self._node.check_alive()
        answered: asyncio.Future[Any] = running_loop().create_future()
        self._kafka.ask(
            self._node, self._kafka.topics.copy, lambda found, _: _settle(answered, found)
        )
        if not wait_for(answered, timeout_s=_seconds(timeout)):
            raise unreachable("list_topics")
        self._sender.warm = True
        return metadata(answered.result(), topic)

    def init_transactions(self, timeout: float = -1) -> None:
        """Fence every earlier producer of the id, and wait for its transaction to end."""
        if self.state is not State.NEW:
            raise erroneous_state("init_transactions was called before")
        self._kafka.initialising(self, self._node)
        self._run("init", self._sender.init, timeout)
        self.state = State.READY

    def begin_transaction(self) -> None:
        """Begin, locally: the broker hears of it with the first batch."""
        self._check()
        if self.state is not State.READY:
            raise erroneous_state(f"begin_transaction while {self.state.value}")
        self.state = State.IN_TRANSACTION
        self._sender.begin()

    def produce(
        self,
        topic: str,
        value: bytes | None = None,
        key: bytes | None = None,
        partition: int = 0,
        **_more: object,
    ) -> None:
        """Queue a record.

        Raises:
            BufferError: If the queue is full.
            KafkaException: ``_FATAL``, without the cause, once the instance is broken.
        """
        self._node.check_alive()
        if self.state is State.FATAL:
            raise KafkaException(fatal(KafkaError._FATAL, "fatal error"))
        if self.state is not State.IN_TRANSACTION:
            raise erroneous_state(f"produce while {self.state.value}")
        if self._sender.queued >= self._queue_max:
            raise BufferError("Local: Queue full")
        log = self._kafka.logs.get((topic, partition))
        if log is None:
            raise KafkaException(KafkaError(KafkaError._UNKNOWN_PARTITION))
        self._sender.queue(log, self._kafka.record(self._node, key, value))

    def poll(self, timeout: float = 0) -> int:
        """Let the library send; blocks for the timeout."""
        self._node.check_alive()
        if self.state is State.IN_TRANSACTION:
            self._sender.send_queue(_nothing)
        if timeout:
            wait_s(timeout)
        return 0

    def flush(self, timeout: float = -1) -> int:
        """Send what is queued; return how many records are still not acknowledged."""
        self._check()
        sent: asyncio.Future[KafkaError | None] = running_loop().create_future()
        self._sender.send_queue(lambda error: _settle(sent, error))
        wait_for(sent, timeout_s=_seconds(timeout))
        return 0 if sent.done() and sent.result() is None else max(1, self._sender.queued)

    def commit_transaction(self, timeout: float = -1) -> None:
        """Commit; after ``_TIMED_OUT`` (retriable) the next call waits for the same commit."""
        self._check()
        if self.state is State.ABORTABLE:
            raise KafkaException(self._error)
        if self.state is not State.IN_TRANSACTION:
            raise erroneous_state(f"commit_transaction while {self.state.value}")
        self._run("commit", self._sender.commit, timeout)
        self.state = State.READY

    def abort_transaction(self, timeout: float = -1) -> None:
        """Abort; after ``_TIMED_OUT`` (retriable) the next call waits for the same abort."""
        self._check()
        if self.state not in (State.IN_TRANSACTION, State.ABORTABLE):
            raise erroneous_state(f"abort_transaction while {self.state.value}")
        self._run("abort", self._sender.abort, timeout)
        self.state = State.READY

    def close(self, timeout: float = -1) -> bool:
        """Destroy the instance: nothing is sent any more, an open transaction stays open."""
        del timeout
        self.state = State.CLOSED
        self._sender.closed = True
        self._sender.drop_queue()
        return True

    def __len__(self) -> int:
        return self._sender.queued

    def _batch_refused(self, error: KafkaError) -> None:
        if self.state is State.IN_TRANSACTION:
            self._break(error)

    def _break(self, error: KafkaError) -> None:
        self._error = error
        self.state = State.FATAL if error.fatal() else State.ABORTABLE

    def _check(self) -> None:
        self._node.check_alive()
        if self.state is State.FATAL:
            raise KafkaException(self._error)

    def _run(self, name: str, begin: Callable[[Done], None], timeout: float) -> None:
        """Begin an operation, or go on waiting for it; raise what it failed with."""
        self._node.check_alive()
        if self._operation is None:
            future: asyncio.Future[KafkaError | None] = running_loop().create_future()
            self._operation = (name, future)
            begin(lambda error: _settle(future, error))
        elif self._operation[0] != name:
            raise KafkaException(
                KafkaError(KafkaError._CONFLICT, f"{self._operation[0]} is under way")
            )
        future = self._operation[1]
        if not wait_for(future, timeout_s=_seconds(timeout)):
            raise timed_out(name)
        self._operation = None
        error = future.result()
        if error is not None:
            self._break(error)
            raise KafkaException(error)


def metadata(topics: Mapping[str, int], topic: str | None) -> Any:
    """Return what ``list_topics`` returns, as far as it is read."""
    wanted = topics if topic is None else {topic: topics.get(topic, 0)}
    return SimpleNamespace(
        topics={
            name: SimpleNamespace(
                topic=name,
                partitions={number: SimpleNamespace(id=number) for number in range(count)},
                error=None if count else KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART),
            )
            for name, count in wanted.items()
        }
    )


def _seconds(timeout: float) -> float | None:
    return None if timeout < 0 else timeout


def _settle(future: "asyncio.Future[Any]", value: Any) -> None:
    if not future.done():
        future.set_result(value)


def _nothing(_: object) -> None:
    """Wait for nothing."""
