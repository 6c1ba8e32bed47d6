"""Causes at Kafka and the registry: the runbook's commands show each as it says."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

from integration.harness import Room, wait_for
from k2.kafka.registry import Registry
from runbooks.causes import Line, starved
from runbooks.desk import Desk

pytestmark = pytest.mark.integration

POISON = b'{"test": "message"}'
"""What the first runbook sent with the console producer (contract C23)."""


def test_registry_down_kafka_refusing_and_kafka_down(room: Room, desk: Desk) -> None:
    room.exchange("--rate", "100")
    with Line(room.stack, room.stack.address.registry_port) as registry:
        room.extra["SCHEMA_REGISTRY_URL"] = f"http://{registry.address}"
        registry.cut()
        stream = room.stream()
        desk.sees("registry-down-at-start")
        registry.mend()
        desk.sees_health("healthy")
        registry.cut()
        desk.sees("registry-down-later")
        registry.mend()
        desk.sees_health("healthy")

        with largest_message(room, 100):
            desk.sees("produce-refused")
        desk.sees_health("healthy")

        os.kill(room.stack.pids["kafka"], signal.SIGKILL)
        try:
            room.stack.call(room.stack.stack.watch())
            desk.sees("kafka-down")
        finally:
            room.stack.call(room.stack.stack.restart_broker())
        desk.sees_health("healthy")
        newest = room.stop_trading()
        desk.archive()
        room.wait_until_archived(newest)
        room.check_promise(newest)
        assert stream.running


def test_slow_kafka_and_too_little_cpu_are_told_apart(room: Room, desk: Desk) -> None:
    room.exchange("--rate", "100")
    stream = room.stream()
    assert stream.popen is not None
    desk.sees_health("healthy")
    wait_for(lambda: desk.samples("binance_message_latency_seconds_count"), what="commits")
    with starved(room.stack.pids["kafka"], runs_s=0.05, rests_s=1.2):
        desk.sees("latency-kafka")
        wait_for(lambda: slow_share(desk) > 0.01, what="the alert's p99 to pass 0.5 s")
    desk.sees_health("healthy")
    with starved(stream.popen.pid, runs_s=0.05, rests_s=1.0):
        before = desk.samples("binance_message_latency_seconds")
        desk.sees("latency-cpu")
        wait_for(
            lambda: slow_share(desk, since=before) > 0.01, what="the alert's p99 to pass 0.5 s"
        )


def test_a_foreign_record_and_a_foreign_schema(room: Room, desk: Desk) -> None:
    room.exchange("--rate", "100")
    stream = room.stream()
    desk.archive()
    room.wait_until_archiving()
    producer = Producer({"bootstrap.servers": room.stack.address.bootstrap})
    producer.produce(room.topic, POISON, partition=0)
    assert producer.flush(10) == 0
    desk.sees("record-not-a-trade")
    assert stream.end() == 0

    room.prefix += "x"
    registry = Registry(room.stack.address.registry_url)
    registry.register(f"{room.topic}-value", '{"type": "record", "name": "Other", "fields": []}')
    assert room.stream().wait() == 1
    desk.sees("schema-incompatible")


@contextmanager
def largest_message(room: Room, size_bytes: int) -> Iterator[None]:
    """Have the topic take no larger batch."""
    _set(room, str(size_bytes), AlterConfigOpType.SET)
    try:
        yield
    finally:
        _set(room, "", AlterConfigOpType.DELETE)


def _set(room: Room, value: str, operation: AlterConfigOpType) -> None:
    entry = ConfigEntry("max.message.bytes", value, incremental_operation=operation)
    resource = ConfigResource(ResourceType.TOPIC, room.topic, incremental_configs=[entry])
    admin = AdminClient({"bootstrap.servers": room.stack.address.bootstrap})
    for future in admin.incremental_alter_configs([resource]).values():
        future.result(10)


def slow_share(desk: Desk, *, since: dict[str, float] | None = None) -> float:
    """Return the share of trades that took over 0.5 s into Kafka."""
    before = since or {}
    family = "binance_message_latency_seconds"
    now = desk.samples(family)
    names = (f"{family}_count", f'{family}_bucket{{le="0.5"}}')
    count, fast = (now[name] - before.get(name, 0) for name in names)
    return 1 - fast / count if count else 0.0
