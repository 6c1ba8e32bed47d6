"""The shell that tries a transaction, and looks for one that holds readers back; blocking."""

import time
from collections.abc import Iterable, Mapping
from typing import Any

from confluent_kafka import (
    Consumer,
    IsolationLevel,
    KafkaException,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]

from k2.doctor.finding import Unseen
from k2.doctor.kafka_judgement import OpenTransaction, TransactionDone, TransactionRefused
from k2.doctor.kafka_look import TIMEOUT_S, reason

TRANSACTIONAL_ID = "k2-doctor"
"""Nobody else's: a product's id would fence its writer."""

TRY_TIMEOUT_S = 8.0
SECOND_LOOK_S = 1.0
"""A shard commits every 50 ms: what has not moved in a second is not its ordinary work."""


def try_transaction(
    client: Mapping[str, Any], *, transaction_s: float
) -> TransactionDone | TransactionRefused:
    """Initialise, begin and commit a transaction without a record: no topic gets anything.

    Args:
        client: What the producer is made with.
        transaction_s: The timeout k2's own transactions ask for.
    """
    producer = Producer(
        {
            **client,
            "transactional.id": TRANSACTIONAL_ID,
            "transaction.timeout.ms": round(transaction_s * 1000),
        }
    )
    began_s = time.monotonic()
    try:
        producer.init_transactions(TRY_TIMEOUT_S)
        producer.begin_transaction()
        producer.commit_transaction(TRY_TIMEOUT_S)
    except KafkaException as exc:
        return TransactionRefused(str(exc.args[0].name()), reason(exc))
    return TransactionDone(time.monotonic() - began_s)


def open_transactions(
    client: Mapping[str, Any], partitions: Mapping[str, int]
) -> list[OpenTransaction] | Unseen:
    """Return the partitions whose last stable offset stands still before their end.

    Args:
        client: What the clients are made with.
        partitions: Topic to partition count.
    """
    admin = AdminClient(dict(client))
    every = [(topic, n) for topic, count in partitions.items() for n in range(count)]
    try:
        before = _waiting(admin, every)
        if not before:
            return []
        time.sleep(SECOND_LOOK_S)
        after = _waiting(admin, list(before))
        still = [place for place, (stable, _) in after.items() if stable == before[place][0]]
        return [
            OpenTransaction(*place, *after[place], _open_for_s(client, place, after[place][0]))
            for place in still
        ]
    except KafkaException as exc:
        return Unseen(reason(exc))
    except TimeoutError:
        return Unseen(f"nothing answered within {TIMEOUT_S:g} s")


def _waiting(
    admin: AdminClient, places: Iterable[tuple[str, int]]
) -> dict[tuple[str, int], tuple[int, int]]:
    """Return stable and end offset of the partitions where they differ.

    The stable offset is asked first: what is committed in between moves only the end.
    """
    wanted = [TopicPartition(topic, partition) for topic, partition in places]
    stable = _ends(admin, wanted, IsolationLevel.READ_COMMITTED)
    end = _ends(admin, wanted, IsolationLevel.READ_UNCOMMITTED)
    return {place: (stable[place], end[place]) for place in stable if stable[place] < end[place]}


def _ends(
    admin: AdminClient, wanted: Iterable[TopicPartition], level: IsolationLevel
) -> dict[tuple[str, int], int]:
    newest: OffsetSpec = OffsetSpec.latest()  # type: ignore[no-untyped-call]
    futures = admin.list_offsets(
        dict.fromkeys(wanted, newest),
        isolation_level=level,
        request_timeout=TIMEOUT_S,
    )
    return {
        (one.topic, one.partition): future.result(TIMEOUT_S + 1).offset
        for one, future in futures.items()
    }


def _open_for_s(client: Mapping[str, Any], place: tuple[str, int], offset: int) -> float | None:
    """Return the age of the record at an offset: the first of the oldest open transaction."""
    consumer = Consumer(
        {
            **client,
            "group.id": TRANSACTIONAL_ID,  # assign() only: the group is never joined
            "isolation.level": "read_uncommitted",
            "enable.auto.commit": False,
        }
    )
    try:
        consumer.assign([TopicPartition(*place, offset)])
        message = consumer.poll(TIMEOUT_S)
        if message is None:
            return None
        problem = message.error()
        if problem is not None:
            raise KafkaException(problem)
        return time.time() - message.timestamp()[1] / 1000
    finally:
        consumer.close()
