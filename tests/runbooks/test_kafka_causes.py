"""Causes at Kafka and the registry: the runbook's commands show each as it says."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

from integration.harness import Process, Room, wait_for
from k2.kafka.registry import Registry
from runbooks.causes import Line, starved
from runbooks.desk import Desk

pytestmark = pytest.mark.integration

MEMORY = "process_memory_rss_bytes"
GROWN_BYTES = 4 << 20

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
        # The registry is looked at each 10 s: that it is away, and that it is back, shows beside
        # what becomes of Kafka.
        with largest_message(room, 100):
            desk.sees("produce-refused")
        desk.sees("registry-down-later")
        registry.mend()

        before = desk.samples(MEMORY)[MEMORY]
        os.kill(room.stack.pids["kafka"], signal.SIGKILL)
        try:
            room.stack.call(room.stack.stack.watch())
            desk.sees("kafka-down")
            room.control("trading", {"rate": 2000})
            desk.sees("memory-kafka-away")
            wait_for(
                lambda: desk.samples(MEMORY)[MEMORY] > before + GROWN_BYTES, what="memory to grow"
            )
            room.control("trading", {"rate": 100})
        finally:
            room.stack.call(room.stack.stack.restart_broker())
        desk.sees_health("healthy")
        newest = room.stop_trading()
        desk.archive()
        room.wait_until_archived(newest)
        room.check_promise(newest)
        assert stream.running


def test_slow_ways_slow_kafka_and_too_little_cpu_are_told_apart(room: Room, desk: Desk) -> None:
    room.exchange("--rate", "100")
    port = urlsplit(room.exchange_url).port
    assert port is not None
    with (
        Line(room.stack, port) as way,
        Line(room.stack, room.stack.address.registry_port) as registry,
    ):
        room.extra |= {
            "BINANCE_WS_URL": f"ws://{way.address}/ws",
            "SCHEMA_REGISTRY_URL": f"http://{registry.address}",
        }
        stream = room.stream()
        desk.sees_health("healthy")
        way.lengthen(1.5)
        wait_for(
            lambda: (desk.health()["latency"]["exchange_to_us_s"] or 0) > 0.3,
            what="trades to be heard late",
        )
        desk.sees("latency-exchange")
        way.lengthen(0)
        registry.lengthen(0.3)
        desk.sees("latency-registry")
        assert desk.health()["latency"]["to_commit_s"] < 0.6  # one question and its answer
        registry.lengthen(0)
        starve(room, desk, stream)


def starve(room: Room, desk: Desk, stream: Process) -> None:
    """Have Kafka, then the capture, run only now and then."""
    assert stream.popen is not None
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

    room.prefix += "x"
    desk.sees("registry-elsewhere", settings={"SCHEMA_REGISTRY_URL": room.exchange_url})
    desk.sees("schema-not-registered")
    desk.sees("schema-registered-by-hand")
    assert room.stream("--symbols", "NOSUCHUSDT").wait() == 2
    desk.sees("refused-not-listed")


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
