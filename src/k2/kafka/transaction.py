"""One shard's transactional producer: trades and their position commit together, or not at all.

Blocking; it lives on one thread of its own. Every outcome is one of: committed (returns),
nothing happened (RetryError), unknown (ReconcileError: read the position back), or
somebody else is the writer now (FencedError: the position is theirs, read it back too).
"""

import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import structlog
from confluent_kafka import KafkaError, KafkaException

from k2.errors import ReconcileError, RetryError
from k2.kafka.clients import LIBRARY, Clients
from k2.kafka.connection import KafkaConnection
from k2.kafka.rights import explained

TRANSACTION_TIMEOUT_S = 60.0
"""Longer than the outages to ride out: the broker aborts what is open for longer."""

CALL_TIMEOUT_S = 5.0
"""How long one call may block before its shard says that it is waiting."""

INIT_TIMEOUT_S = 30.0
INIT_SLICE_S = 0.05
"""Over a predecessor's open transaction the library sleeps 0.5 s before it asks the broker again,
unless it is asked again itself: 0.05 to 0.10 s (measured 2026-11-21, confluent-kafka 2.16)."""


_log = structlog.get_logger()


class FencedError(ReconcileError):
    """A successor became the writer of the shard: what it wrote decides what is left to do."""


class Record(NamedTuple):
    """One Kafka record to be; without value it deletes what a compacted topic has by its key."""

    topic: str
    key: bytes
    value: bytes | None


def transactional_id(trades_topic: str, shard: int) -> str:
    """Return the id that fences: the same in every instance, never a host or version."""
    return f"k2-{trades_topic}-{shard}"


class ShardProducer:
    """The producer of one shard (partition ``shard`` of every topic it writes)."""

    def __init__(
        self,
        *,
        kafka: KafkaConnection,
        trades_topic: str,
        shard: int,
        keep_trying: Callable[[], bool],
        clients: Clients = LIBRARY,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Name it; ``keep_trying`` is asked while a call waits for a broker that is away."""
        self.shard = shard
        self._kafka = kafka
        self._settings: dict[str, Any] = {
            "transactional.id": transactional_id(trades_topic, shard),
            "transaction.timeout.ms": int(TRANSACTION_TIMEOUT_S * 1000),
            "enable.idempotence": True,
            "compression.type": "lz4",
            "linger.ms": 5,
            "batch.size": 262_144,
            "queue.buffering.max.messages": 200_000,
            "reconnect.backoff.max.ms": 1_000,
            "topic.metadata.refresh.interval.ms": 30_000,
            "log_level": 3,
        }
        self._keep_trying = keep_trying
        self._make = clients.producer
        self._monotonic_s = monotonic_s
        self._began_s = 0.0
        self.recalls = 0
        """How often a commit had to be called again because Kafka did not answer in time."""
        self._producer: Any = None
        self._warm: Any = None

    def warm(self) -> None:
        """Keep a producer connected that fences nobody, for the next ``initialise``.

        Call it again now and then: brokers close connections that stay idle.

        Raises:
            RetryError: If the broker cannot be reached.
        """
        if self._warm is None:
            self._warm = self._make(self._kafka.client(self._settings), logger=_LIBRARY_LOG)
        try:
            self._warm.list_topics(timeout=CALL_TIMEOUT_S)
        except KafkaException as exc:
            raise RetryError(f"Kafka cannot be reached: {exc.args[0].str()}") from exc

    def initialise(self) -> None:
        """Become the writer: fence every earlier producer of this shard.

        Raises:
            RetryError: If the broker cannot be reached.
            FencedError: If another process became it at the same time.
        """
        self._producer = None
        self._began_s = self._monotonic_s()
        # A connected producer initialises in 5-19 ms instead of 0.5-1 s.
        self.warm()
        producer, self._warm = self._warm, None
        while True:
            try:
                producer.init_transactions(INIT_SLICE_S)
            except KafkaException as exc:
                reason = exc.args[0]
                if _fenced(reason):  # whatever time it took: nothing of ours is open yet
                    raise self._taken(reason) from exc
                waited_s = self._monotonic_s() - self._began_s
                if reason.retriable() and waited_s < INIT_TIMEOUT_S and self._keep_trying():
                    continue  # it goes on with what it began
                raise RetryError(f"Kafka did not start a transaction: {explained(reason)}") from exc
            break
        self._producer = producer

    def commit(self, records: Iterable[Record]) -> None:
        """Write the records in one transaction.

        Raises:
            RetryError: If it was aborted: nothing of it is visible; initialise anew.
            ReconcileError: If its outcome is unknown; the producer is destroyed.
            FencedError: If a successor has fenced this producer, which is destroyed.
        """
        producer = self._producer
        if producer is None:
            raise ReconcileError("this shard's producer is not initialised")
        self._began_s = self._monotonic_s()
        try:
            producer.begin_transaction()
            for record in records:
                self._produce(producer, record)
            resumed = self._resolve(producer)
        except KafkaException as exc:
            self._abandon(producer, exc)
            # Why it was refused may be that Kafka has lost more than this: a broker that came back
            # without the end of its log. Whoever goes on looks at the position first.
            self._producer = None
            raise RetryError(f"transaction aborted: {exc.args[0].str()}") from exc
        if resumed:
            # A late copy of a timed-out request must not meet the next transaction (KAFKA-17754),
            # so this producer does not get one.
            self._producer = None

    @property
    def initialised(self) -> bool:
        """Whether a transaction can begin; after one that did not end well and at once: not yet."""
        return self._producer is not None

    def destroy(self) -> None:
        """Forget the producer, and a warm one.

        An open transaction is ended by the shard's next initialisation.
        """
        self._producer = self._warm = None

    def _produce(self, producer: Any, record: Record) -> None:
        while True:
            try:
                producer.produce(
                    record.topic, value=record.value, key=record.key, partition=self.shard
                )
            except BufferError as exc:
                if not self._keep_trying():
                    self._producer = None
                    raise ReconcileError("stopped while a full queue waited for Kafka") from exc
                producer.poll(0.05)  # the library's queue is full; its own thread empties it
                continue
            return

    def _resolve(self, producer: Any) -> bool:
        """Commit, calling again for as long as the library says that is right.

        Returns whether it took more than one call.
        """
        resumed = False
        waiting_since_s = self._monotonic_s()
        while True:
            try:
                producer.commit_transaction(CALL_TIMEOUT_S)
            except KafkaException as exc:
                if not exc.args[0].retriable():
                    raise
                if not self._keep_trying():
                    self._producer = None
                    raise ReconcileError("stopped while a commit waited for Kafka") from exc
                resumed = True
                self.recalls += 1
                _log.warning(
                    "transaction_commit_waits",
                    shard=self.shard,
                    waited_s=round(self._monotonic_s() - waiting_since_s, 1),
                    reason=exc.args[0].str(),
                )
                continue
            return resumed

    def _abandon(self, producer: Any, exc: KafkaException) -> None:
        """Abort what is open; return only if it is certain that nothing of it is visible."""
        reason = exc.args[0]
        if reason.code() == KafkaError._FATAL:  # noqa: SLF001 - the library's own name
            reason = _behind(producer, reason)
        if _fenced(reason):
            self._producer = None
            raise self._fenced(reason) from exc
        if not reason.txn_requires_abort():
            self._producer = None
            raise ReconcileError(f"commit outcome unknown: {reason.str()}") from exc
        while True:
            try:
                producer.abort_transaction(CALL_TIMEOUT_S)
            except KafkaException as abort_exc:
                abort_reason = abort_exc.args[0]
                if abort_reason.retriable() and self._keep_trying():
                    continue
                self._producer = None
                if _fenced(abort_reason):
                    raise self._fenced(abort_reason) from abort_exc
                raise ReconcileError(f"abort outcome unknown: {abort_reason.str()}") from abort_exc
            return

    def _fenced(self, reason: KafkaError) -> ReconcileError:
        open_s = self._monotonic_s() - self._began_s
        if open_s > TRANSACTION_TIMEOUT_S:
            # Kafka itself ends a transaction that was open for too long (we were paused, or the
            # machine slept), and says the same. The position tells which of the two it was.
            return ReconcileError(f"fenced after {open_s:.0f} s in one transaction: {reason.str()}")
        return self._taken(reason)

    def _taken(self, reason: KafkaError) -> FencedError:
        return FencedError(
            f"another process became the writer of shard {self.shard} "
            f"({self._settings['transactional.id']}): {reason.str()}"
        )


def _behind(producer: Any, reason: KafkaError) -> KafkaError:
    """Return what a fatal error stands for: ``produce`` says only that there is one."""
    try:
        producer.abort_transaction(CALL_TIMEOUT_S)
    except KafkaException as exc:
        told: KafkaError = exc.args[0]
        return told
    return reason


def _fenced(reason: KafkaError) -> bool:
    # The library's public names for its own codes start with an underscore.
    return reason.code() in (KafkaError._FENCED, KafkaError.PRODUCER_FENCED)  # noqa: SLF001


class _LibraryLog:
    """Hands librdkafka's own log lines to ours, as one event."""

    def log(self, _level: int, template: str, *args: Any) -> None:
        _log.debug("librdkafka_said", text=template % args if args else template)


_LIBRARY_LOG = _LibraryLog()
