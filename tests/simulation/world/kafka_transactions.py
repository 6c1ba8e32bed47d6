"""The transaction coordinator: one producer epoch per transactional id, one decision per commit."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from confluent_kafka import KafkaError

from simulation.world.kafka_errors import BrokerError
from simulation.world.kafka_log import Outcome, PartitionLog, Transaction, Written
from simulation.world.virtual_time import VirtualTimeLoop

SWEEP_S = 10.0
"""The broker looks for transactions that are open for too long this often (Kafka's default)."""


@dataclass(eq=False)
class Holder:
    """What the coordinator knows of one transactional id."""

    name: str
    epoch: int = -1
    timeout_s: float = 60.0
    open: Transaction | None = None
    completing: Transaction | None = None
    """Decided, its markers not written yet."""
    last: Outcome | None = None
    """What became of the last transaction of this epoch."""
    late_commit_epoch: int | None = None
    """A commit request of this epoch is still under way, though a copy of it was answered."""


class Coordinator:
    """Answers requests the moment they arrive; markers follow a decision a little later."""

    def __init__(
        self,
        loop: VirtualTimeLoop,
        rng: random.Random,
        *,
        when_up: Callable[[Callable[[], None]], None],
    ) -> None:
        """Start empty; ``when_up`` runs a call now, or when the broker is back."""
        self.timed_out = 0
        self.fenced = 0
        self.late_commits_struck = 0
        self._loop = loop
        self._rng = rng
        self._when_up = when_up
        self._holders: dict[str, Holder] = {}

    def init(self, name: str, *, timeout_s: float) -> int:
        """Give a producer its epoch, fencing every earlier one.

        Raises:
            BrokerError: CONCURRENT_TRANSACTIONS while the predecessor's transaction ends.
        """
        holder = self._holders.setdefault(name, Holder(name))
        if holder.open is not None:
            holder.epoch += 1
            self._decide(holder, Outcome.ABORTED)
        if holder.completing is not None:
            raise BrokerError(KafkaError.CONCURRENT_TRANSACTIONS)
        holder.epoch += 1
        holder.timeout_s = timeout_s
        holder.last = None
        return holder.epoch

    def add_partitions(self, name: str, *, epoch: int, partitions: Sequence[PartitionLog]) -> None:
        """Begin a transaction, or take more partitions into it.

        Raises:
            BrokerError: If the producer is fenced, or the transaction before is not complete yet.
        """
        holder = self._holder(name, epoch)
        if holder.completing is not None:
            raise BrokerError(KafkaError.CONCURRENT_TRANSACTIONS)
        if holder.open is None:
            holder.open = Transaction(epoch)
            wait_s = holder.timeout_s + self._rng.uniform(0, SWEEP_S)
            self._loop.call_world(wait_s, self._expire, holder, holder.open)
        holder.open.partitions.update(dict.fromkeys(partitions))

    def produce(
        self, name: str, *, epoch: int, log: PartitionLog, records: Sequence[Written]
    ) -> None:
        """Append a batch.

        Raises:
            BrokerError: If the producer is fenced, or the partition is not in its transaction.
        """
        holder = self._holder(name, epoch)
        if holder.open is None or log not in holder.open.partitions:
            raise BrokerError(KafkaError.INVALID_TXN_STATE)
        log.append(records, holder.open)
        if holder.late_commit_epoch == epoch:
            holder.late_commit_epoch = None
            self.late_commits_struck += 1
            self._decide(holder, Outcome.COMMITTED)

    def end(self, name: str, *, epoch: int, outcome: Outcome) -> None:
        """Decide a transaction; deciding it the same way again is fine.

        Raises:
            BrokerError: If the producer is fenced, or there is nothing to decide.
        """
        holder = self._holder(name, epoch)
        if holder.open is not None:
            self._decide(holder, outcome)
        elif holder.last is not outcome:
            raise BrokerError(KafkaError.INVALID_TXN_STATE)

    def delay_commit(self, name: str, *, epoch: int) -> None:
        """Keep a copy of a commit request under way, to arrive during the next transaction."""
        self._holders[name].late_commit_epoch = epoch

    def epoch_of(self, name: str) -> int:
        """Return the newest epoch of a transactional id, -1 if it has none."""
        holder = self._holders.get(name)
        return -1 if holder is None else holder.epoch

    def _holder(self, name: str, epoch: int) -> Holder:
        holder = self._holders.get(name)
        if holder is None:
            raise BrokerError(KafkaError.INVALID_PRODUCER_ID_MAPPING)
        if epoch < holder.epoch:
            self.fenced += 1
            raise BrokerError(KafkaError.PRODUCER_FENCED)
        return holder

    def _decide(self, holder: Holder, outcome: Outcome) -> None:
        transaction = holder.open
        assert transaction is not None
        transaction.outcome = outcome
        holder.open, holder.completing, holder.last = None, transaction, outcome
        self._loop.call_world(
            self._rng.uniform(0.0005, 0.003), self._when_up, lambda: self._mark(holder, transaction)
        )

    def _mark(self, holder: Holder, transaction: Transaction) -> None:
        for log in transaction.partitions:
            log.mark(transaction)
        holder.completing = None

    def _expire(self, holder: Holder, transaction: Transaction) -> None:
        self._when_up(lambda: self._abort_expired(holder, transaction))

    def _abort_expired(self, holder: Holder, transaction: Transaction) -> None:
        if holder.open is transaction:
            self.timed_out += 1
            holder.epoch += 1
            self._decide(holder, Outcome.ABORTED)
