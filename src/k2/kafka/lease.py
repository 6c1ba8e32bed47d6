"""The lease: which instance should write which shard, by Kafka's own consumer groups.

The lease is liveness only. That nobody else writes is the transaction's business: a successor's
``init_transactions`` fences, whatever a holder still believes.
"""

import time
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

import structlog
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from k2.errors import RetryError
from k2.kafka.admin import answered
from k2.kafka.clients import LIBRARY, Clients
from k2.kafka.connection import KafkaConnection
from k2.kafka.rights import explained
from k2.kafka.topics import ADMIN_TIMEOUT_S, TopicNames

SESSION_TIMEOUT_S = 2.5
"""A killed writer is noticed after so long; its open transaction costs its successor 0.5 s more."""

POLL_INTERVAL_MAX_S = 3.0

FALLBACK_SESSION_TIMEOUT_S = 6.0
"""Kafka's own default of ``group.min.session.timeout.ms``: every broker takes it (contract C28)."""

HEARTBEAT_S = 0.05
"""The members that stay learn by their next heartbeat that a shard is free."""

WAKE_S = 0.02
"""How often librdkafka looks whether a heartbeat is due. By itself it sleeps up to half a second,
and a planned hand-over took 0.3 s instead of 0.05 s (measured)."""

SLICE_S = 0.02
"""librdkafka's poll goes on waiting after it has told of a change, so it is asked in slices."""

_log = structlog.get_logger()


class LeaseChange(NamedTuple):
    """What one turn of the group changed for us, by shard."""

    gained: frozenset[int] = frozenset()
    given_up: frozenset[int] = frozenset()
    """Handed back in good order: nobody else holds them yet."""
    lost: frozenset[int] = frozenset()
    """Taken while we were not heard of: somebody else may hold them already."""


_NOTHING = LeaseChange()


def group_id(trades_topic: str) -> str:
    """Return the group's name: the same in every instance, never a host or version."""
    return f"k2-capture-{trades_topic}"


class Lease:
    """The right to try: membership of the consumer group over ``.lease``. For one thread.

    Heartbeats run on the library's thread and would outlive a hung loop, so the lease also ends
    when nobody has called ``poll`` for ``poll_interval_max_s``.
    """

    def __init__(
        self,
        kafka: KafkaConnection,
        *,
        names: TopicNames,
        client_id: str,
        session_timeout_s: float = SESSION_TIMEOUT_S,
        poll_interval_max_s: float = POLL_INTERVAL_MAX_S,
        clients: Clients = LIBRARY,
        slice_s: float = SLICE_S,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Name the group and ourselves; the first ``poll`` joins."""
        self.held: frozenset[int] = frozenset()
        """Ours, as of the last change ``poll`` returned."""
        self.session_timeout_s = session_timeout_s
        """What a crash costs before another member gets the shard."""
        self._kafka = kafka
        self._names = names
        self._client_id = client_id
        self._poll_interval_max_s = poll_interval_max_s
        self._make = clients.consumer
        self._slice_s = slice_s
        self._monotonic_s = monotonic_s
        self._consumer: Any = None
        self._changes: deque[LeaseChange] = deque()

    def poll(self, timeout_s: float) -> LeaseChange:
        """Take part in the group; return its next change for us, or an empty one.

        Returns at once when something changed, one change at a time, in the order they came.
        After ``leave`` it joins again.

        Raises:
            RetryError: If the group cannot be joined for now; go on polling.
        """
        deadline_s = self._monotonic_s() + timeout_s
        left_s = timeout_s
        while not self._changes:
            message = self._joined().poll(max(0.0, min(left_s, self._slice_s)))
            if message is not None:
                self._judge(message.error())
            left_s = deadline_s - self._monotonic_s()
            if left_s <= 0 and not self._changes:
                return _NOTHING
        change = self._changes.popleft()
        self.held = (self.held - change.given_up - change.lost) | change.gained
        return change

    def leave(self) -> None:
        """Leave the group: our shards are free at once. Write nothing afterwards.

        Waits up to 5 s for a broker that is away.
        """
        self._close()
        self.held = frozenset()

    def _close(self) -> None:
        if self._consumer is not None:
            self._consumer.close()
            self._consumer = None
        self._changes.clear()

    def _joined(self) -> Any:
        if self._consumer is None:
            # Kafka refuses a poll interval below the session.
            poll_interval_max_s = max(self._poll_interval_max_s, self.session_timeout_s)
            self._consumer = self._make(
                self._kafka.client(
                    {
                        "client.id": self._client_id,
                        "group.id": group_id(self._names.trades),
                        "group.protocol": "classic",
                        # A newcomer leaves the shards where they are, unless that would be unfair.
                        "partition.assignment.strategy": "cooperative-sticky",
                        "session.timeout.ms": round(self.session_timeout_s * 1000),
                        "heartbeat.interval.ms": round(HEARTBEAT_S * 1000),
                        "max.poll.interval.ms": round(poll_interval_max_s * 1000),
                        # There is nothing to commit: its timer is the one that wakes the library.
                        "enable.auto.commit": True,
                        "auto.commit.interval.ms": round(WAKE_S * 1000),
                        "auto.offset.reset": "latest",
                        "reconnect.backoff.max.ms": 1_000,
                        "log_level": 2,  # what goes wrong is said here, in our own words
                    }
                )
            )
            self._consumer.subscribe(
                [self._names.lease],
                on_assign=lambda _, shards: self._changed("gained", shards),
                on_revoke=lambda _, shards: self._changed("given_up", shards),
                on_lost=lambda _, shards: self._changed("lost", shards),
            )
        return self._consumer

    def _changed(self, how: str, partitions: list[Any]) -> None:
        if partitions:
            shards = frozenset(partition.partition for partition in partitions)
            self._changes.append(LeaseChange(**{how: shards}))

    def _judge(self, problem: KafkaError | None) -> None:
        if problem is None or problem.retriable():
            return
        if problem.code() == KafkaError._MAX_POLL_EXCEEDED:  # noqa: SLF001 - the library's name
            _log.warning("lease_poll_came_late", limit_s=self._poll_interval_max_s)
            return  # what was lost is told by its own callback
        if (
            problem.code() == KafkaError.INVALID_SESSION_TIMEOUT
            and self.session_timeout_s < FALLBACK_SESSION_TIMEOUT_S
        ):
            _log.warning(
                "lease_session_prolonged",
                from_s=self.session_timeout_s,
                to_s=FALLBACK_SESSION_TIMEOUT_S,
                why="the broker's group.min.session.timeout.ms is higher; a crash is noticed later",
            )
            self._close()
            if self.held:
                self._changes.append(LeaseChange(lost=self.held))
            self.session_timeout_s = FALLBACK_SESSION_TIMEOUT_S
            return
        raise RetryError(f"the lease group cannot be joined: {explained(problem)}")


def other_members(admin: AdminClient, group: str, *, client_id: str) -> int:
    """Return how many members the group has besides ``client_id``.

    To be asked rarely: where the connection is lost under this request, librdkafka 2.16 can end the
    process (``Assertion `eonce->refcnt > 0'``, its issue 4605; seen once in thousands of requests
    to a broker that was stopped and let go on all the time).

    Raises:
        RetryError: If Kafka does not say.
    """
    future = admin.describe_consumer_groups([group], request_timeout=ADMIN_TIMEOUT_S)[group]
    try:
        members = answered(future, request_timeout_s=ADMIN_TIMEOUT_S).members
    except KafkaException as exc:
        if exc.args[0].code() == KafkaError.GROUP_ID_NOT_FOUND:
            return 0  # nobody has joined yet
        raise RetryError(f"Kafka did not describe group {group}: {exc.args[0].str()}") from exc
    return sum(member.client_id != client_id for member in members)
