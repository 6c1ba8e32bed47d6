"""Two instances, one tape: whoever writes, dies, hangs or hands over, it stays one."""

import json
import signal
import time
import urllib.request
from typing import Any

import pytest

from integration.harness import Process, Room, wait_for
from k2.local.ports import pick_free

pytestmark = pytest.mark.integration

TAKE_OVER_AFTER_KILL_S = 3.5


def writes(process: Process) -> bool:
    """Say whether a process took over last and did not step down since."""
    return len(process.events("took_over")) > len(process.events("standing_by"))


def start_pair(room: Room) -> tuple[Process, Process]:
    """Start two instances; return writer and hot standby."""
    first = room.stream(name="first")
    wait_for(lambda: writes(first), what="the first instance to write")
    second = room.stream(name="second")
    wait_for(lambda: second.events("Subscribed"), what="the second instance to listen")
    return first, second


def trade_on(room: Room, *, for_s: float) -> None:
    """Let trading go on for a while, told by the exchange."""
    end_s = time.monotonic() + for_s
    wait_for(lambda: time.monotonic() >= end_s and room.newest_ids(), what="time to pass")


def health(port: int) -> dict[str, Any]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as reply:
        found = json.load(reply)
    assert isinstance(found, dict)
    return found


def finish(room: Room) -> None:
    newest = room.stop_trading()
    room.wait_until_archived(newest)
    room.check_promise(newest)


def test_a_newcomer_leaves_the_writer_alone_and_agrees_with_it(room: Room) -> None:
    room.exchange("--rate", "400")
    first = room.stream(name="first")
    wait_for(lambda: writes(first), what="the first instance to write")
    port = pick_free(1)[0]
    room.extra["K2_HEALTH_PORT"] = str(port)
    second = room.stream(name="second")
    room.archive()
    room.wait_until_archiving()

    def agreed() -> bool:
        compared = health(port)["compared"] if second.events("Subscribed") else []
        return len(compared) == len(room.symbols) and all(one["equal"] > 50 for one in compared)

    wait_for(agreed, what="both to agree on what was written")
    found = health(port)
    for one in found["compared"]:
        assert (one["different"], one["not_written"]) == (0, 0), one
    (shard,) = found["shards"]
    assert (found["role"], shard["role"], shard["takeovers"]) == ("auto", "standby", 0)
    assert shard["symbols"].keys() == set(room.symbols)
    assert {leg["leg"]: leg["live"] for leg in found["legs"]} == {"a": True, "b": True}
    assert writes(first)
    assert not second.events("took_over")
    finish(room)


def test_an_observer_never_writes(room: Room) -> None:
    room.exchange("--rate", "400")
    observer = room.stream("--role", "observer", name="observer")
    wait_for(lambda: observer.events("Subscribed"), what="the observer to listen")
    writer = room.stream(name="writer")
    wait_for(lambda: writes(writer), what="the writer to write")
    room.archive()
    room.wait_until_archiving()
    writer.kill()
    trade_on(room, for_s=5)
    assert not observer.events("took_over")
    writer.start()
    finish(room)


def test_two_shards_are_spread_over_two_instances(room: Room) -> None:
    room.extra["K2_SHARDS"] = "2"
    room.exchange("--rate", "400")
    first = room.stream(name="first")
    wait_for(lambda: len(first.events("took_over")) == 2, what="the first to write both shards")
    second = room.stream(name="second")
    wait_for(lambda: writes(second), what="the second to be given a shard")
    room.archive()
    room.wait_until_archiving()
    second.kill()
    wait_for(lambda: len(first.events("took_over")) == 3, what="the first to take it back")
    trade_on(room, for_s=1)
    finish(room)


def test_a_standby_takes_over_from_a_killed_writer(room: Room) -> None:
    room.exchange("--rate", "400")
    first, second = start_pair(room)
    room.archive()
    room.wait_until_archiving()
    trade_on(room, for_s=4)
    killed_s = time.time()
    first.kill()
    wait_for(lambda: writes(second), what="the standby to take over")
    trade_on(room, for_s=1)
    finish(room)
    assert room.worst_pause_s(since_s=killed_s - 1) <= TAKE_OVER_AFTER_KILL_S


def test_a_planned_hand_over_hardly_pauses_the_tape(room: Room) -> None:
    room.exchange("--rate", "400")
    first, second = start_pair(room)
    room.archive()
    room.wait_until_archiving()
    trade_on(room, for_s=3)
    ended_s = time.time()
    assert first.end() == 0
    wait_for(lambda: writes(second), what="the standby to take over")
    trade_on(room, for_s=1)
    finish(room)
    assert room.worst_pause_s(since_s=ended_s - 1) <= 1.0


def test_a_stopped_writer_that_comes_back_writes_nothing(room: Room) -> None:
    room.exchange("--rate", "400")
    first, second = start_pair(room)
    room.archive()
    room.wait_until_archiving()
    first.signal(signal.SIGSTOP)
    wait_for(lambda: writes(second), what="the standby to take over")
    trade_on(room, for_s=1)
    first.signal(signal.SIGCONT)
    wait_for(lambda: first.events("standing_by"), what="the zombie to notice")
    trade_on(room, for_s=1)
    finish(room)
    assert writes(second)
    assert first.running


def test_signals_change_the_role(room: Room) -> None:
    room.exchange("--rate", "400")
    first, second = start_pair(room)
    room.archive()
    room.wait_until_archiving()
    first.signal(signal.SIGUSR2)
    wait_for(lambda: writes(second), what="the standby to take over")
    wait_for(lambda: not writes(first), what="the first to stand by")
    assert first.running
    second.kill()
    trade_on(room, for_s=4)
    assert not writes(first), "an observer never writes"
    first.signal(signal.SIGUSR1)
    wait_for(lambda: writes(first), what="the observer to become the writer")
    finish(room)
