"""Decoded records of the trades topic, for people: ``k2 tail``."""

import time
from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from typing import Any

from confluent_kafka import Consumer, KafkaException, TopicPartition
from fastavro.schema import SchemaParseException

from k2.errors import RejectError, RetryError
from k2.kafka.admin import KafkaAdmin
from k2.kafka.connection import KafkaConnection
from k2.kafka.encoding import decode_record, parse_schema, split_wire
from k2.kafka.registry import Registry
from k2.kafka.topics import TopicNames, describe_topics
from k2.kafka.watermarks import watermarks

_TRADE = (
    *(("trade_ts_us", datetime), ("symbol", str), ("source_sequence", int), ("taker_side", str)),
    *(("price", Decimal), ("quantity", Decimal), ("origin", str)),
)
"""What a line of ``k2 tail`` shows."""

QUIET_S = 1.0
TIMEOUT_S = 10.0


def tail_records(
    kafka: KafkaConnection,
    registry: Registry,
    *,
    topic_prefix: str,
    count: int,
    follow: bool,
) -> Iterator[dict[str, Any]]:
    """Yield the newest committed records, oldest first, then what arrives if ``follow``.

    A record that is no trade comes as its ``offset``, ``error`` and ``raw`` text.

    Raises:
        RetryError: If Kafka or the registry cannot be reached, or the topic does not exist.
    """
    topic = TopicNames.of(topic_prefix).trades
    try:
        facts = describe_topics(KafkaAdmin(kafka), [topic])
    except RetryError as exc:
        raise RetryError(f"{kafka.bootstrap}: {exc}") from exc
    if topic not in facts:
        raise RetryError(
            f"topic {topic} does not exist at {kafka.bootstrap}: nothing was recorded there, or "
            "KAFKA_TOPIC_PREFIX differs"
        )
    schemas: dict[int, Any] = {}
    consumer = Consumer(
        kafka.client(
            {
                "group.id": "k2-tail",  # assign() only: the group is never joined
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "log_level": 2,
            }
        )
    )
    try:
        partitions = facts[topic].partitions
        starts, ends = _starts(consumer, topic, partitions, count)
        consumer.assign(starts)
        window: list[Any] = []
        heard_at_s = time.monotonic()
        while ends and time.monotonic() - heard_at_s < QUIET_S * 5:
            for message in consumer.consume(1000, 0.2):
                if message.error() is None:
                    window.append(message)
                    heard_at_s = time.monotonic()
            ends = {p: end for p, end in ends.items() if not _reached(consumer, topic, p, end)}
        window.sort(key=lambda message: message.timestamp()[1])
        for message in window[-count:]:
            yield decoded(message, registry, schemas)
        while follow:
            for message in consumer.consume(1000, 0.2):
                if message.error() is None:
                    yield decoded(message, registry, schemas)
    except KafkaException as exc:
        raise RetryError(f"Kafka cannot read {topic}: {exc.args[0].str()}") from exc
    finally:
        consumer.close()


def _starts(
    consumer: Consumer, topic: str, partitions: int, count: int
) -> tuple[list[TopicPartition], dict[int, int]]:
    starts, ends = [], {}
    for partition in range(partitions):
        low, high = watermarks(consumer, topic, partition, timeout_s=TIMEOUT_S)
        # Every transaction leaves a marker in the log, at worst one per record.
        start = max(low, high - 2 * count - 2)
        starts.append(TopicPartition(topic, partition, start))
        if high > start:
            ends[partition] = high
    return starts, ends


def _reached(consumer: Consumer, topic: str, partition: int, end: int) -> bool:
    position = consumer.position([TopicPartition(topic, partition)])[0].offset
    # The last offset of a transactional log is a marker, which position() does not pass.
    return position >= end - 1


def decoded(message: Any, registry: Registry, schemas: dict[int, Any]) -> dict[str, Any]:
    """Return a record's trade, or its ``offset``, ``error`` and ``raw`` text where it is none.

    Args:
        message: As the consumer gave it.
        registry: Asked for schemas not seen yet.
        schemas: Those seen, by id.

    Raises:
        RetryError: If the registry cannot be reached.
    """
    try:
        return _trade(message.value(), registry, schemas)
    except RejectError as exc:
        raw = (message.value() or b"").decode("utf-8", errors="replace")
        return {"offset": message.offset(), "error": str(exc), "raw": raw}


def _trade(value: bytes | None, registry: Registry, schemas: dict[int, Any]) -> dict[str, Any]:
    schema_id, body = split_wire(value)
    if schema_id not in schemas:
        text = registry.schema_text(schema_id)
        schemas[schema_id] = None if text is None else _parsed(schema_id, text)
    if schemas[schema_id] is None:
        raise RejectError(f"schema id {schema_id} is unknown")
    record = decode_record(body, schemas[schema_id])
    if absent := [name for name, kind in _TRADE if not isinstance(record.get(name), kind)]:
        raise RejectError(f"no trade: it has no {', '.join(absent)}")
    return record


def _parsed(schema_id: int, text: str) -> Any:
    try:
        return parse_schema(text)
    except (ValueError, TypeError, KeyError, SchemaParseException, RecursionError) as exc:
        raise RejectError(f"schema id {schema_id} is no Avro schema: {exc!r}") from exc
