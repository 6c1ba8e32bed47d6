"""What librdkafka does on its own threads for a transactional producer: sending, asking again.

Everything here is a callback of the producer's node, so it stops when the node is frozen or dead.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from confluent_kafka import KafkaError

from simulation.world.kafka_errors import FENCED, BrokerError, abortable, fatal
from simulation.world.kafka_faults import CommitFate, Stage
from simulation.world.kafka_log import Outcome, PartitionLog, Written
from simulation.world.node import Node

if TYPE_CHECKING:
    from simulation.world.kafka_world import KafkaWorld

CONCURRENT_RETRY_S = 0.5
"""librdkafka's wait when the predecessor's transaction is still being ended."""

NEXT_TRANSACTION_RETRY_S = 0.02

LATE_COPY_AFTER_S = 5.5
"""A commit that leaves a late copy takes longer than a call waits (5 s in k2), so that its caller
can know. librdkafka asks again without telling only after a disconnect, which ends old copies."""

_FENCING = {KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH}

Done = Callable[[KafkaError | None], None]


class Sender:
    """One producer's threads. Each operation tells ``done`` of its error, or None."""

    def __init__(
        self,
        kafka: "KafkaWorld",
        node: Node,
        name: str,
        *,
        timeout_s: float,
        failed: Callable[[KafkaError], None],
    ) -> None:
        """Be idle; ``failed`` hears what a batch was refused for."""
        self.name = name
        self.warm = False
        self.closed = False
        self.queued = 0
        self._kafka = kafka
        self._node = node
        self._timeout_s = timeout_s
        self._failed = failed
        self._epoch = -1
        self._queue: dict[PartitionLog, list[Written]] = {}
        self._registered: set[PartitionLog] = set()
        self._sending = False
        self._after_sending: list[Callable[[], None]] = []

    def begin(self) -> None:
        """Begin a transaction, locally: the broker hears of it with the first batch."""
        self._registered.clear()

    def queue(self, log: PartitionLog, written: Written) -> None:
        """Take a record."""
        self._queue.setdefault(log, []).append(written)
        self.queued += 1

    def drop_queue(self) -> None:
        """Forget what was not sent."""
        self._queue.clear()
        self.queued = 0

    def _ask(self, handle: Callable[[], Any], answer: Callable[..., None]) -> None:
        self._kafka.ask(self._node, handle, answer)

    def _later(self, delay_s: float, call: Callable[..., None], *args: Any) -> None:
        def unless_closed() -> None:
            if not self.closed:
                call(*args)

        self._kafka.tell(self._node, delay_s, unless_closed)

    def init(self, done: Done) -> None:
        """Get an epoch; faster for a producer that is connected already."""
        rng = self._kafka.rng
        wait = rng.uniform(0.003, 0.015) if self.warm else rng.uniform(0.5, 1.0)
        self._later(wait, self._ask_for_epoch, done)

    def _ask_for_epoch(self, done: Done) -> None:
        def answer(epoch: int | None, error: BrokerError | None) -> None:
            if error is not None and error.code == KafkaError.CONCURRENT_TRANSACTIONS:
                self._later(CONCURRENT_RETRY_S, self._ask_for_epoch, done)
                return
            self._epoch = -1 if epoch is None else epoch
            done(None if error is None else _said(error))

        coordinator, timeout_s = self._kafka.transactions, self._timeout_s
        self._ask(lambda: coordinator.init(self.name, timeout_s=timeout_s), answer)

    def send_queue(self, done: Done) -> None:
        """Register the partitions, then send each one's batch; ``done`` hears the first error."""
        if self._sending:
            self._after_sending.append(lambda: self.send_queue(done))
            return
        if not self._queue:
            done(None)
            return
        self._sending = True
        queue, self._queue, self.queued = self._queue, {}, 0

        def sent(error: KafkaError | None) -> None:
            self._sending = False
            if error is not None:
                self._failed(error)
            done(error)
            waiting, self._after_sending = self._after_sending, []
            for call in waiting:
                call()

        new = [log for log in queue if log not in self._registered]
        self._register(new, lambda error: sent(error) if error else self._send(queue, sent))

    def _register(self, logs: list[PartitionLog], done: Done) -> None:
        def answer(_: None, error: BrokerError | None) -> None:
            if error is not None and error.code == KafkaError.CONCURRENT_TRANSACTIONS:
                self._later(NEXT_TRANSACTION_RETRY_S, self._register, logs, done)
                return
            if error is None:
                self._registered.update(logs)
            done(None if error is None else _said(error))

        if not logs:
            done(None)
            return
        coordinator, name, epoch = self._kafka.transactions, self.name, self._epoch
        self._ask(lambda: coordinator.add_partitions(name, epoch=epoch, partitions=logs), answer)

    def _send(self, queue: Mapping[PartitionLog, list[Written]], done: Done) -> None:
        under_way = len(queue)
        failed: KafkaError | None = None

        def answer(_: None, error: BrokerError | None) -> None:
            nonlocal under_way, failed
            under_way -= 1
            if error is not None and failed is None:
                failed = _said(error)
            if under_way == 0:
                done(failed)

        for log, records in queue.items():
            self._ask(lambda log=log, records=records: self._append(log, records), answer)  # type: ignore[misc]

    def _append(self, log: PartitionLog, records: list[Written]) -> None:
        self._kafka.transactions.produce(self.name, epoch=self._epoch, log=log, records=records)
        self._kafka.faults.reached(self._node, Stage.BATCH_APPENDED)

    def commit(self, done: Done) -> None:
        """Send what is queued, then commit."""
        self.send_queue(lambda error: done(error) if error else self._end_commit(done))

    def _end_commit(self, done: Done) -> None:
        if not self._registered:
            done(None)
            return
        faults = self._kafka.faults
        fate = faults.commit_fate(self._node)
        if fate is CommitFate.ABORTABLE:
            done(abortable(KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER, "a batch was refused"))
        elif fate in (CommitFate.FATAL_COMMITTED, CommitFate.FATAL_NOT_COMMITTED):
            if fate is CommitFate.FATAL_COMMITTED:
                self._kafka.send(self._decide_commit)
            broken = fatal(KafkaError.UNKNOWN_PRODUCER_ID, "the library broke down")
            self._later(2 * self._kafka.hop_s(), done, broken)
        elif fate is CommitFate.FINE:
            self._end(Outcome.COMMITTED, done)
        else:
            if fate is CommitFate.REPLY_LOST:
                self._kafka.send(self._decide_commit)
            silence_s, after = faults.silence_s(), done
            if fate is CommitFate.LATE_COPY:
                silence_s, after = max(silence_s, LATE_COPY_AFTER_S), self._leave_copy(done)
            self._later(silence_s, self._end, Outcome.COMMITTED, after)

    def _leave_copy(self, done: Done) -> Done:
        def done_but_for_the_copy(error: KafkaError | None) -> None:
            if error is None:
                self._kafka.transactions.delay_commit(self.name, epoch=self._epoch)
            done(error)

        return done_but_for_the_copy

    def abort(self, done: Done) -> None:
        """Drop what is queued, then abort."""
        self.drop_queue()
        if self._sending:
            self._after_sending.append(lambda: self.abort(done))
        elif self._registered:
            self._end(Outcome.ABORTED, done)
        else:
            done(None)

    def _end(self, outcome: Outcome, done: Done) -> None:
        def answer(_: None, error: BrokerError | None) -> None:
            if error is not None and error.code == KafkaError.INVALID_TXN_STATE:
                done(fatal(error.code, "the broker's transaction is in another state"))
            else:
                done(None if error is None else _said(error))

        if outcome is Outcome.COMMITTED:
            self._ask(self._decide_commit, answer)
            return
        coordinator, name, epoch = self._kafka.transactions, self.name, self._epoch
        self._ask(lambda: coordinator.end(name, epoch=epoch, outcome=outcome), answer)

    def _decide_commit(self) -> None:
        self._kafka.transactions.end(self.name, epoch=self._epoch, outcome=Outcome.COMMITTED)
        self._kafka.faults.reached(self._node, Stage.COMMIT_DECIDED)


def _said(error: BrokerError) -> KafkaError:
    if error.code in _FENCING:
        return FENCED
    return abortable(error.code, "the broker refused the transaction")
