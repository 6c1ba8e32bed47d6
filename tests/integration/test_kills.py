"""SIGKILL, mid-run, three times each, with trading going on: nothing is lost or doubled."""

import os
import signal

import pytest

from integration.harness import Room, wait_for

pytestmark = pytest.mark.integration

KILLS = 3
AHEAD_IDS = 100
"""Trades that pass between two kills."""


def trade_on(room: Room, *, symbol: str = "BTCUSDT") -> None:
    """Wait until the exchange has traded on: the kill that follows is mid-run."""
    start = room.newest_ids()[symbol]
    wait_for(
        lambda: room.newest_ids()[symbol] >= start + AHEAD_IDS,
        what="trading to go on",
    )


def finish(room: Room) -> None:
    newest = room.stop_trading()
    room.wait_until_archived(newest)
    room.check_promise(newest)


def test_the_stream_is_killed_three_times_and_no_id_is_lost_or_doubled(room: Room) -> None:
    room.exchange("--rate", "400")
    stream, archive = room.stream(), room.archive()
    room.wait_until_archiving()
    for _ in range(KILLS):
        trade_on(room)
        stream.kill()
        trade_on(room)
        stream.start()
    finish(room)
    assert stream.end() == 0
    assert archive.end() == 0
    healed = {r["origin"] for records in room.topic_records().values() for r in records}
    assert healed == {"STREAM", "HEALED"}, "what was missed came by REST"


def test_the_archive_is_killed_three_times_and_no_row_is_lost_or_doubled(room: Room) -> None:
    room.exchange("--rate", "400")
    room.stream()
    archive = room.archive()
    room.wait_until_archiving()
    for _ in range(KILLS):
        trade_on(room)
        archive.kill()
        trade_on(room)
        archive.start()
    finish(room)


def test_the_broker_is_killed_three_times_and_nothing_is_lost_or_doubled(room: Room) -> None:
    room.exchange("--rate", "400")
    stream, archive = room.stream(), room.archive()
    room.wait_until_archiving()
    for _ in range(KILLS):
        trade_on(room)
        room.stack.call(_kill_broker(room))
        trade_on(room)
        room.stack.call(room.stack.stack.restart_broker())
        trade_on(room)
    finish(room)
    assert stream.running
    assert archive.running


async def _kill_broker(room: Room) -> None:
    os.kill(room.stack.pids["kafka"], signal.SIGKILL)
    ended = await room.stack.stack.watch()
    assert ended.name == "kafka"
