"""What happens to the record, in Kafka and in the lake, is seen on the metrics page."""

import os
import signal
import time
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

from integration.harness import Room, read_messages
from integration.test_metrics import fault
from integration.watched import Watched

pytestmark = pytest.mark.integration

X, QUIET = "BTCUSDT", "ETHUSDT"
AGG = {"symbol": X, "stream": "aggTrade"}


def test_what_happens_to_the_record_is_seen(room: Room) -> None:
    room.symbols = (X, QUIET)
    room.measured = True
    room.extra |= {"K2_HEAL_WAIT_MAX": "1"}
    room.exchange("--rate", "200")
    stream = Watched(room, room.stream())
    archive = Watched(room, room.archive())
    room.wait_until_archiving()
    a_steady_flow(archive)
    topic_and_table_hold_the_same_ids(room, stream, archive)
    room.control("listings", {"status": {QUIET: "BREAK"}})
    a_hole_that_heals(room, stream)
    ids_declared_and_repaired(room, stream)
    void_rows(room, stream)
    stream.becomes(1, "k2_symbol_silent", symbol=QUIET)
    room.control("listings", {"status": {QUIET: "TRADING"}})
    rest_that_asks_us_to_stay_away(room, stream)
    stream.becomes(0, "k2_symbol_silent", symbol=QUIET)
    assert stream.value("k2_promise_broken") == 0
    poison(room, archive)
    a_lake_that_cannot_be_written(room, stream, archive)
    a_foreign_duplicate(room, archive)


def a_steady_flow(archive: Watched) -> None:
    rows = archive.rises("iceberg_rows_written_total", table="trades")
    for name in ("iceberg_write_duration_seconds_count", "iceberg_transaction_rows_count"):
        assert archive.value(name, table="trades") > 0
    assert archive.value("iceberg_transaction_rows_sum", table="trades") >= rows
    assert archive.value("iceberg_write_duration_seconds_sum", operation="append") > 0
    archive.rises("iceberg_snapshot_count", table="trades")
    archive.reaches(1, "iceberg_batch_size", table="trades")
    at_s = archive.value("k2_lake_last_commit_timestamp_seconds", table="trades")
    assert abs(time.time() - at_s) < 10
    archive.rises("k2_lake_next_id", symbol=X)
    for name in ("k2_lake_freshness_seconds", "k2_commit_to_queryable_seconds"):
        archive.rises(f"{name}_count")
        assert archive.value(f"{name}_sum") > 0
    archive.becomes(1, "serializer_cache_size", component_type="consumer")


def topic_and_table_hold_the_same_ids(room: Room, stream: Watched, archive: Watched) -> None:
    """Trading stopped, and all of it archived: both figures name the id after the last of both."""
    newest = room.stop_trading()
    for symbol, last_id in newest.items():
        stream.becomes(last_id + 1, "k2_next_id", symbol=symbol)
        archive.becomes(last_id + 1, "k2_lake_next_id", symbol=symbol)
    in_topic = {
        symbol: [record["source_sequence"] for record in records]
        for symbol, records in room.topic_records().items()
    }
    in_table = room.reader().run(
        "SELECT symbol, min(source_sequence), max(source_sequence), count(*) FROM trades GROUP BY 1"
    )
    assert {symbol: ids[-1] for symbol, ids in in_topic.items()} == newest
    assert sorted(in_table.rows) == sorted(
        (symbol, ids[0], ids[-1], len(ids)) for symbol, ids in in_topic.items()
    )
    assert all(len(ids) == ids[-1] - ids[0] + 1 for ids in in_topic.values())
    room.control("trading", {"on": True})


def a_hole_that_heals(room: Room, stream: Watched) -> None:
    holes, trades = (stream.value(f"k2_{w}_healed_total", symbol=X) for w in ("holes", "trades"))
    room.control("faults", {"status": 503, "count": 1000, "path": "aggTrades"})
    fault(room, "skip", count=3, **AGG)
    stream.becomes(1, "k2_holes_open", symbol=X)
    stream.reaches(10, "k2_trades_held")
    stream.reaches(1000, "k2_hold_bytes")
    assert stream.value("k2_holes_open", symbol=QUIET) == 0
    room.forget_faults()
    stream.becomes(0, "k2_holes_open", symbol=X)
    stream.reaches(holes + 1, "k2_holes_healed_total", symbol=X)
    stream.reaches(trades + 3, "k2_trades_healed_total", symbol=X)
    stream.becomes(0, "k2_trades_held")
    stream.becomes(0, "k2_hold_bytes")
    assert stream.value("sequence_gaps_detected_total") == 0


def ids_declared_and_repaired(room: Room, stream: Watched) -> None:
    """Three ids one leg skips and REST lacks; the other leg has them, too late."""
    newest = room.stop_trading()[X]
    room.control("rest", {"missing": {"first_id": newest + 1, "last_id": newest + 3, **AGG}})
    fault(room, "skip", count=3, which="newest", **AGG)
    fault(room, "stall", which="oldest", duration_s=600)
    room.control("trading", {"on": True})
    stream.becomes(1, "sequence_gaps_detected_total", symbol=X, severity="low", exchange="BINANCE")
    stream.becomes(1, "k2_gaps_declared_total", symbol=X, reason="missing")
    stream.becomes(3, "k2_trades_declared_total", symbol=X)
    stream.becomes(3, "k2_gap_ids_open")
    room.forget_faults()
    stream.becomes(3, "k2_trades_repaired_total", symbol=X)
    stream.becomes(0, "k2_gap_ids_open")


def void_rows(room: Room, stream: Watched) -> None:
    fault(room, "void", symbol=X, count=2)
    stream.reaches(1, "k2_gaps_declared_total", symbol=X, reason="void")
    stream.reaches(2, "binance_message_errors_total", error_type="void")
    stream.becomes(5, "k2_trades_declared_total", symbol=X)
    assert stream.value("k2_gap_ids_open") == 0, "what is void is not looked for"


def rest_that_asks_us_to_stay_away(room: Room, stream: Watched) -> None:
    breaker = ("circuit_breaker_state", {"breaker_name": "binance_rest"})
    assert stream.value(breaker[0], **breaker[1]) == 0
    room.control("faults", {"status": 429, "count": 1, "path": "aggTrades", "retry_after_s": 2})
    # Its first answer after that time comes slowly: until then nobody knows.
    room.control("faults", {"status": 503, "count": 1, "path": "aggTrades", "delay_s": 3})
    fault(room, "skip", count=1, **AGG)
    for state in (1, 2, 0):
        stream.becomes(state, breaker[0], **breaker[1])
    room.forget_faults()


def poison(room: Room, archive: Watched) -> None:
    """Records of eleven schemas nobody knows: more than are kept ready."""
    producer = Producer({"bootstrap.servers": room.stack.address.bootstrap})
    for schema_id in range(1, 12):
        value = b"\0" + (1_000_000 + schema_id).to_bytes(4, "big") + b"?"
        producer.produce(room.topic, value=value, partition=0)
    assert producer.flush(10) == 0
    archive.becomes(11, "iceberg_write_errors_total", table="trades", error_type="serialize")
    archive.becomes(11, "binance_message_errors_total", error_type="serialize")
    archive.becomes(11, "binance_dlq_records_total", error_type="serialize")
    archive.becomes(10, "serializer_cache_size", component_type="consumer")
    archive.reaches(1, "serializer_cache_evictions_total", component_type="consumer")


def a_lake_that_cannot_be_written(room: Room, stream: Watched, archive: Watched) -> None:
    of_trades = {"topic": room.topic, "partition": "0"}
    of_trades["consumer_group"] = "k2-iceberg-writer-crypto-v2"
    archive.until(lambda age_s: age_s < 3, "kafka_consumer_lag_seconds", **of_trades)
    failures = archive.value("iceberg_commit_failures_total", table="trades", error_type="retry")
    with files_refused(room):
        archive.reaches(failures + 1, "iceberg_commit_failures_total", table="trades")
        archive.reaches(4, "kafka_consumer_lag_seconds", **of_trades)
        archive.reaches(400, "kafka_consumer_lag_messages", **of_trades)
        archive.reaches(400, "iceberg_batch_size", table="trades")
        behind = archive.value("k2_lake_next_id", symbol=X)
        ahead = stream.reaches(behind + 100, "k2_next_id", symbol=X)
        assert archive.value("k2_lake_next_id", symbol=X) == behind, "the topic alone goes on"
    archive.reaches(ahead, "k2_lake_next_id", symbol=X)
    archive.until(lambda age_s: age_s < 3, "kafka_consumer_lag_seconds", **of_trades)
    archive.until(lambda offsets: offsets < 400, "kafka_consumer_lag_messages", **of_trades)


@contextmanager
def files_refused(room: Room) -> Iterator[None]:
    """Have a file where the table's folder of files is."""
    folder = room.lake_dir / "warehouse" / "crypto" / "trades" / "data"
    aside = folder.rename(folder.with_name("aside"))
    folder.touch()
    try:
        yield
    finally:
        folder.unlink()
        aside.rename(folder)


def a_foreign_duplicate(room: Room, archive: Watched) -> None:
    """Somebody else writes a trade that is there: the archive leaves it out, and says so."""
    assert archive.value("k2_promise_broken") == 0
    last = next(m for m in read_messages(room.stack.address.bootstrap, room.topic) if m.key())
    producer = Producer({"bootstrap.servers": room.stack.address.bootstrap})
    producer.produce(room.topic, value=last.value(), key=last.key(), partition=0)
    assert producer.flush(10) == 0
    archive.becomes(1, "k2_topic_duplicates_total")
    archive.becomes(1, "k2_promise_broken")


def test_what_kafka_refuses_and_who_writes_is_seen(room: Room) -> None:
    room.measured = True
    room.exchange("--rate", "200")
    room.control("trading", {"rate": 2000})  # a past to fill
    first = Watched(room, room.stream(name="first"))
    first.becomes(1, "k2_takeovers_total", shard="0", reason="start")
    first.becomes(1, "k2_takeover_pause_seconds_count", shard="0")
    first.becomes(1, "k2_shard_writer", shard="0")
    room.control("trading", {"rate": 200})
    the_past(room, first)
    a_topic_that_takes_nothing(room, first)
    another_process_with_our_id(room, first)
    second = Watched(room, room.stream(name="second"))
    second.rises("binance_messages_received_total", symbol=X)
    assert second.value("k2_shard_writer", shard="0") == 0
    assert second.value("kafka_messages_produced_total") == 0
    second.rises("k2_items_passed_total")
    assert first.service.end() == 0
    second.becomes(1, "k2_takeovers_total", shard="0", reason="succession")
    second.becomes(1, "k2_takeover_pause_seconds_count", shard="0")
    second.becomes(1, "k2_shard_writer", shard="0")
    second.rises("kafka_messages_produced_total")
    a_broker_that_hangs_and_a_drain(room, second)


def the_past(room: Room, first: Watched) -> None:
    first_id = room.topic_records()[X][0]["source_sequence"]
    words = ("--symbol", X, "--from-id", str(first_id - 10), "--no-wait")
    room.k2("backfill", *words)
    first.reaches(10, "k2_ids_backfilled_total", symbol=X)


def a_topic_that_takes_nothing(room: Room, first: Watched) -> None:
    of_topic = {"exchange": "BINANCE", "topic": room.topic}
    set_largest_message(room, "100")
    first.reaches(1, "kafka_produce_errors_total", error_type="aborted", **of_topic)
    first.reaches(1, "kafka_produce_retries_total", error_type="aborted", **of_topic)
    first.reaches(100, "binance_producer_queue_messages")
    first.reaches(10_000, "binance_producer_queue_bytes")
    set_largest_message(room, None)
    first.until(lambda waiting: waiting < 100, "binance_producer_queue_messages")


def set_largest_message(room: Room, limit: str | None) -> None:
    operation = AlterConfigOpType.DELETE if limit is None else AlterConfigOpType.SET
    entry = ConfigEntry("max.message.bytes", limit or "", incremental_operation=operation)
    topic = ConfigResource(ResourceType.TOPIC, room.topic, incremental_configs=[entry])
    admin = AdminClient({"bootstrap.servers": room.stack.address.bootstrap})
    for done in admin.incremental_alter_configs([topic]).values():
        done.result(10)


def another_process_with_our_id(room: Room, first: Watched) -> None:
    """Whoever begins with a shard's transactional id fences its writer, who then begins anew."""
    intruder = Producer(
        {
            "bootstrap.servers": room.stack.address.bootstrap,
            "transactional.id": f"k2-{room.topic}-0",
        }
    )
    intruder.init_transactions(10)
    first.reaches(1, "kafka_produce_errors_total", error_type="fenced")
    first.becomes(1, "k2_takeovers_total", shard="0", reason="rejoin")
    first.becomes(1, "k2_shard_writer", shard="0")


def a_broker_that_hangs_and_a_drain(room: Room, writer: Watched) -> None:
    assert writer.value("binance_shutdown_in_progress") == 0
    broker = room.stack.pids["kafka"]
    os.kill(broker, signal.SIGSTOP)
    try:
        writer.reaches(1, "kafka_produce_errors_total", error_type="timed_out")
        writer.reaches(1, "kafka_produce_retries_total", error_type="timed_out")
        writer.reaches(500, "binance_producer_queue_messages")
        writer.service.signal(signal.SIGTERM)
        writer.becomes(1, "binance_shutdown_in_progress")
        assert writer.service.wait() == 3, "what waits is healed by the next start"
    finally:
        os.kill(broker, signal.SIGCONT)
