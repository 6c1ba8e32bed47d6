"""Causes in the messages: the runbook's commands show each as it says."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from integration.harness import Room, wait_for
from runbooks.desk import Desk

pytestmark = pytest.mark.integration

TRADE = {
    "e": "aggTrade",
    "E": 1767225600123,
    "s": "BTCUSDT",
    "a": 1,
    "p": "1",
    "q": "1",
    "f": 1,
    "l": 1,
    "T": 1767225600123,
    "m": True,
}


def test_each_kind_of_bad_message_is_a_letter_of_its_kind(room: Room, desk: Desk) -> None:
    room.exchange("--rate", "200")
    stream = room.stream()
    desk.archive()
    room.wait_until_archiving()
    # A new field: nothing happens but that it is ignored.
    room.control("stream-faults", {"fault": "extra_field", "count": 50})
    wait_for(lambda: struck(room, "extra_field") >= 50, what="50 events with a new field")
    assert sum(desk.samples("binance_message_errors_total").values()) == 0
    assert not list(room.dead_letter_dir.glob("*.jsonl"))

    send(room, "{oops")
    desk.sees("letter-not-json")
    send(room, json.dumps({name: value for name, value in TRADE.items() if name != "p"}))
    desk.sees("letter-missing-field")
    send(room, json.dumps(TRADE | {"a": "1"}))
    desk.sees("letter-wrong-type")
    send(room, json.dumps(TRADE | {"p": "NaN"}))
    desk.sees("letter-price")
    room.control("stream-faults", {"fault": "unknown_event"})
    desk.sees("letter-unknown-event")
    desk.sees("letters")
    desk.sees("letters-replayed")

    newest = room.stop_trading()
    room.wait_until_archived(newest)
    room.check_promise(newest)
    assert stream.end() == 0


def test_letters_that_cannot_be_written_are_counted_and_the_disk_is_named(
    room: Room, desk: Desk
) -> None:
    room.exchange("--rate", "100")
    room.dead_letter_dir.mkdir()
    today = datetime.now(UTC)
    for day in (today, today + timedelta(days=1)):
        file = room.dead_letter_dir / f"binance-{day:%Y%m%d}.jsonl"
        file.symlink_to("/dev/full")  # each write to it is answered as by a full disk
    room.stream()
    desk.sees_health("healthy")
    send(room, "{oops")
    desk.sees("letters-disk-full")

    room.dead_letter_dir.rename(room.path / "elsewhere")
    room.dead_letter_dir.write_text("a file where the folder should be")
    lost = sum(desk.samples("binance_dlq_write_errors_total").values())
    send(room, "{oops")
    desk.sees("letters-lost")
    assert sum(desk.samples("binance_dlq_write_errors_total").values()) > lost


def send(room: Room, text: str) -> None:
    room.control("stream-faults", {"fault": "malformed", "text": text})


def struck(room: Room, fault: str) -> int:
    """Return how many events a fault has struck."""
    counts = room.control("status")["counts"]
    return int(counts.get(f"fault {fault}", 0))
