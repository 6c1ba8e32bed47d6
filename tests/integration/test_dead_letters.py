"""Dead letters on the real thing: file, topic, and what a replay brings back."""

import json
import sys
import urllib.request
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from integration.harness import Process, Room, read_messages, read_topic, wait_for
from k2.ingestion.topic_archive import CONSUMER_GROUP
from k2.local.ports import pick_free
from k2.market import StreamKind
from k2.simulator import Ledger, TapeRow

pytestmark = pytest.mark.integration

POISON = b'{"test": "message"}'
"""What the runbook tells the operator to send with the console producer (contract C23)."""

X = "BTCUSDT"


def test_the_runbooks_test_message_costs_a_letter_and_nothing_else(room: Room) -> None:
    (port,) = pick_free(1)
    room.extra["K2_ARCHIVE_METRICS_PORT"] = str(port)
    room.exchange("--rate", "400")
    room.stream()
    archive = room.archive()
    room.wait_until_archiving()
    room.poison = (POISON,)
    offset = send(room, POISON)
    letter = wait_for(lambda: next(iter(letters_on_disk(room)), None), what="the letter on disk")
    assert letter["original_message"] == {"_raw": POISON.decode()}
    assert (letter["topic"], letter["connection_id"]) == (room.topic, "archive")
    assert wait_for(lambda: letters_in_kafka(room), what="the letter in Kafka") == [letter]
    for name in ("binance_message_errors_total", "binance_dlq_records_total"):
        assert wait_for(partial(figure, port, name), what=name) == 1
    assert figure(port, "binance_dlq_write_errors_total") == 0
    wait_for(lambda: group_offset(room) > offset, what="the group's offset to pass the record")
    newest = room.stop_trading()
    room.wait_until_archived(newest)
    room.check_promise(newest)
    assert archive.end() == 0


def test_letters_of_frames_are_on_disk_and_the_same_in_kafka_by_symbol(room: Room) -> None:
    room.exchange("--rate", "400")
    stream = room.stream()
    room.archive()
    room.wait_until_archiving()
    malformed(room, '{"e":"aggTrade","E":1,"s":"BTCUSDT","a":7,"p":"x"}', count=3)
    malformed(room, "{oops", count=1)
    # Two legs: each brings its own copy.
    on_disk = wait_for(
        lambda: found if len(found := letters_on_disk(room)) == 8 else None, what="the letters"
    )
    wait_for(lambda: len(letters_in_kafka(room)) == 8, what="the letters in Kafka")
    assert by_sequence(letters_in_kafka(room)) == by_sequence(on_disk)
    messages = read_messages(room.stack.address.bootstrap, f"{room.topic}.dlq")
    keys = {message.key() for message in messages}
    assert keys == {None, b"BTCUSDT"}
    newest = room.stop_trading()
    room.wait_until_archived(newest)
    room.check_promise(newest)
    assert stream.end() == 0


def test_a_replay_brings_each_declared_id_once_whatever_dies_meanwhile(room: Room) -> None:
    room.symbols = (X,)
    room.extra |= {"K2_HEAL_WAIT_MAX": "1"}
    room.exchange("--rate", "300")
    streams = [room.stream(name="one"), room.stream(name="two")]
    archive = room.archive()
    room.wait_until_archiving()
    # Six ids no source has: two of them void at the exchange, so that nobody looks for them.
    void = declare_void(room)
    *missing, nowhere = declare_missing(room)
    first = room.topic_records()[X][0]["source_sequence"]
    recorded = row_of(room, first + 1)
    # The letters of a decoder that could not read what today's can.
    letters = [
        *(letter(room, event(row_of(room, source_id))) for source_id in missing),
        letter(room, event(row_of(room, missing[0]))),
        letter(room, event(row_of(room, missing[1]), price="1")),
        letter(room, event(recorded, price="1")),
        *(letter(room, event(recorded) | {"a": source_id}) for source_id in void),
        letter(room, {"_raw": "{oops"}),
        letter(room, event(recorded), topic="other.binance"),
        letter(room, event(recorded) | {"a": 1 << 40}),
    ]
    write_letters(room, letters)

    dry = replay(room, "--dry-run")
    assert [one["outcome"] for one in dry["letters"]] == [
        *["repairable"] * 5, "recorded", *["repairable"] * 2, "still bad", "other tape", "outside",
    ]  # fmt: skip
    assert brought(room) == []

    # REST has the first missing row by now, and a voided one; the others nobody has.
    room.forget_faults()
    rest_lacks(room, missing[1], nowhere)
    rest_lacks(room, void[1], void[1])
    words = [sys.executable, "-m", "k2", "dlq", "replay", "--json"]
    running = [room.process(f"replay{n}", words).start() for n in range(2)]
    writer(streams).kill()
    assert [one.wait(90) for one in running] == [0, 0]
    told = wait_for(
        lambda: done if not (done := replay(room))["counts"].get("asked") else None,
        what="nothing to be asked for",
    )
    assert sorted(brought(room)) == sorted([*missing, void[1]])
    outcomes = [one["outcome"] for one in told["letters"]]
    assert outcomes[:6] == ["recorded"] * 6
    assert outcomes[6:8] == ["declined", "recorded"]
    records = {record["source_sequence"]: record for record in brought_records(room)}
    assert str(records[missing[0]]["price"]).startswith(row_of(room, missing[0]).price)
    assert records[missing[0]]["origin"] == "HEALED", "REST had it"
    assert records[missing[1]]["origin"] == "STREAM", "only the letter had it"
    again = replay(room)
    assert again["counts"] == told["counts"]
    assert len(brought(room)) == len(missing) + 1

    newest = room.stop_trading()
    room.wait_until_archived(newest)

    def complete() -> bool:
        (one,) = room.proof().symbols
        return one.missing == one.duplicates == 0 and one.declared == 2

    wait_for(complete, what=f"the lake to have what was brought: {room.proof()}")
    verified = json.loads(room.k2("verify", "--json").stdout)
    assert verified["complete"]
    ids = [record["source_sequence"] for record in room.topic_records()[X]]
    assert len(ids) == len(set(ids))
    assert not set(ids) & {*missing, *void}
    assert [one.end() for one in (writer(streams), archive)] == [0, 0]
    lose_kafka(room)
    write_letters(room, [letter(room, event(row_of(room, i))) for i in (nowhere, missing[0])])
    assert [one["outcome"] for one in replay(room, "--dry-run")["letters"]] == [
        "repairable",
        "recorded",
    ], "the position looks for it, though the record that declared it is gone"


def lose_kafka(room: Room) -> None:
    """Delete what says where the tape stands, and have the position rebuilt from the lake."""
    admin = AdminClient({"bootstrap.servers": room.stack.address.bootstrap})
    topics = {room.topic, *(f"{room.topic}.{of}" for of in ("positions", "gaps"))}
    for done in admin.delete_topics(sorted(topics)).values():
        done.result(10)
    wait_for(lambda: not topics & {*admin.list_topics(timeout=10).topics}, what="no topic")
    room.k2("positions", "rebuild", "--from-lake")


def send(room: Room, value: bytes) -> int:
    producer = Producer({"bootstrap.servers": room.stack.address.bootstrap})
    offsets: list[int] = []
    producer.produce(
        room.topic,
        value=value,
        partition=0,
        on_delivery=lambda _problem, message: offsets.append(message.offset() or 0),
    )
    assert producer.flush(10) == 0
    return offsets[0]


def figure(port: int, name: str) -> float | None:
    """Return the sum of a family's samples, as the archive shows them."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as reply:
        lines = reply.read().decode().splitlines()
    values = [float(line.rpartition(" ")[2]) for line in lines if line.startswith(name)]
    return sum(values) if values else None


def group_offset(room: Room) -> int:
    consumer = Consumer(
        {"bootstrap.servers": room.stack.address.bootstrap, "group.id": CONSUMER_GROUP}
    )
    try:
        (partition,) = consumer.committed([TopicPartition(room.topic, 0)], timeout=10)
        return int(partition.offset)
    finally:
        consumer.close()


def letters_on_disk(room: Room) -> list[dict[str, Any]]:
    files = sorted(room.dead_letter_dir.glob("binance-*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def letters_in_kafka(room: Room) -> list[dict[str, Any]]:
    messages = read_messages(room.stack.address.bootstrap, f"{room.topic}.dlq")
    return [json.loads(message.value() or b"") for message in messages]


def by_sequence(letters: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(letters, key=lambda one: int(one["sequence"]))


def malformed(room: Room, text: str, *, count: int) -> None:
    room.control("stream-faults", {"fault": "malformed", "text": text, "count": count})


def declare_missing(room: Room) -> list[int]:
    """Have four ids declared that no source has; return them."""
    newest = room.stop_trading()[X]
    which = {"symbol": X, "stream": "aggTrade"}
    room.control("stream-faults", {"fault": "skip", "count": 4, **which})
    room.control("rest", {"missing": {"first_id": newest + 1, "last_id": newest + 4, **which}})
    room.control("trading", {"on": True})
    wait_for(lambda: gaps(room, "missing") == 4, what="four ids to be declared missing")
    return [newest + 1, newest + 2, newest + 3, newest + 4]


def declare_void(room: Room) -> list[int]:
    """Have two ids declared that the exchange voided; return them."""
    room.control("stream-faults", {"fault": "void", "symbol": X, "count": 2})
    wait_for(lambda: gaps(room, "void") == 2, what="two ids to be declared void")
    told = json.loads(room.k2("gaps", "--json").stdout)["gaps"]
    return [
        source_id
        for one in told
        if one["gap_class"] == "void"
        for source_id in range(one["first_id"], one["last_id"] + 1)
    ]


def gaps(room: Room, gap_class: str) -> int:
    told = json.loads(room.k2("gaps", "--json").stdout)["gaps"]
    return sum(one["ids"] for one in told if one["gap_class"] == gap_class)


def rest_lacks(room: Room, first_id: int, last_id: int) -> None:
    """From now on REST lacks these ids too."""
    ids = {"first_id": first_id, "last_id": last_id}
    room.control("rest", {"missing": {"symbol": X, "stream": "aggTrade", **ids}})


def row_of(room: Room, source_id: int) -> TapeRow:
    ledger = Ledger.read(room.path / "exchange")
    (row,) = ledger.rows(X, StreamKind.AGG_TRADE, from_id=source_id, limit=1)
    assert row.row_id == source_id
    return row


def event(row: TapeRow, *, price: str = "") -> dict[str, Any]:
    """Return a row as the stream sends it."""
    return {
        "e": "aggTrade",
        "E": row.event_ts_us,
        "s": X,
        "a": row.row_id,
        "p": price or row.price,
        "q": row.quantity,
        "f": row.first_trade_id,
        "l": row.last_trade_id,
        "T": row.trade_ts_us,
        "m": row.buyer_is_maker,
    }


def letter(room: Room, original: dict[str, Any], *, topic: str = "") -> dict[str, Any]:
    """Return a dead letter of an earlier version."""
    return {
        "timestamp": datetime.now(UTC).isoformat(),
        "error": "Invalid field: of a time that knew less",
        "error_type": "unexpected_type",
        "topic": topic or room.topic,
        "symbol": original.get("s"),
        "connection_id": "k2-old",
        "sequence": 1,
        "schema_version": "v2",
        "original_message": original,
    }


def write_letters(room: Room, letters: list[dict[str, Any]]) -> None:
    """Have these dead letters and no others."""
    room.dead_letter_dir.mkdir(exist_ok=True)
    for file in room.dead_letter_dir.iterdir():
        file.unlink()
    path = room.dead_letter_dir / f"binance-{datetime.now(UTC):%Y%m%d}.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in letters))


def replay(room: Room, *words: str) -> Any:
    return json.loads(room.k2("dlq", "replay", "--json", *words).stdout)


def brought_records(room: Room) -> list[dict[str, Any]]:
    records = read_topic(room.stack.address.bootstrap, f"{room.topic}.repairs", poison=room.poison)
    return records.get(X, [])


def brought(room: Room) -> list[int]:
    """Return the ids in the repairs topic, in topic order."""
    return [record["source_sequence"] for record in brought_records(room)]


def writer(streams: list[Process]) -> Process:
    """Return the instance that took over last."""
    return max(
        (one for one in streams if one.events("took_over")),
        key=lambda one: one.events("took_over")[-1]["timestamp"],
    )
