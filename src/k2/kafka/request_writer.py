"""An operator's wish, written beside the positions: one plain record, acknowledged by Kafka."""

from typing import Any

from confluent_kafka import KafkaError, KafkaException

from k2.errors import ReconcileError, RetryError
from k2.kafka.clients import LIBRARY, Clients
from k2.kafka.connection import KafkaConnection

WRITE_TIMEOUT_S = 10.0


def write_request(
    kafka: KafkaConnection,
    *,
    positions_topic: str,
    shard: int,
    key: bytes,
    value: bytes,
    clients: Clients = LIBRARY,
) -> int:
    """Write a wish into a shard's partition; return the offset of its record.

    Raises:
        RetryError: If Kafka took nothing.
        ReconcileError: If nobody knows whether it was written; asking again does no harm.
    """
    producer = clients.producer(
        kafka.client(
            {
                "acks": "all",
                "enable.idempotence": True,
                "message.timeout.ms": round(WRITE_TIMEOUT_S * 1000),
                "log_level": 2,
            }
        )
    )
    offsets: list[int] = []
    problems: list[KafkaError] = []

    def told(problem: KafkaError | None, message: Any) -> None:
        if problem is None:
            offsets.append(message.offset())
        else:
            problems.append(problem)

    try:
        producer.produce(positions_topic, key=key, value=value, partition=shard, on_delivery=told)
        producer.flush(2 * WRITE_TIMEOUT_S)
    except KafkaException as exc:
        raise RetryError(f"Kafka took no request: {exc.args[0].str()}") from exc
    if offsets:
        return offsets[0]
    why = problems[0].str() if problems else "no answer"
    raise ReconcileError(
        f"Kafka did not say whether it has the request ({why}): look with `k2 positions show`; "
        "asking again does no harm"
    )
