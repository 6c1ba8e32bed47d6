"""SIGHUP: new connections where there is no terminal, the end where one was closed."""

import signal
import sys
from itertools import pairwise

import pytest

from integration.harness import Room, wait_for
from integration.terminal import in_a_terminal
from integration.watched import Watched
from k2.ingestion import binance_client

pytestmark = pytest.mark.integration

STREAM = (sys.executable, binance_client.__file__)
MANUAL = {"reason": "manual_rotation"}
HEALED = ("k2_holes_healed_total", "k2_trades_healed_total")


def rotated(one: Watched, *, times: int) -> set[float]:
    """Wait until each leg was rotated so often; return what the connection's state was."""
    states: set[float] = set()

    def done() -> bool:
        assert one.service.running, one.service.log()[-500:]
        samples = one.samples
        states.add(samples.value("binance_connection_state"))
        return all(
            samples.value("binance_connection_rotations_total", leg=leg, **MANUAL) == times
            for leg in "ab"
        )

    wait_for(done, what="both legs to be rotated by hand")
    return states


def test_sighup_replaces_every_legs_connection_and_nothing_is_missed(room: Room) -> None:
    room.measured = True
    room.exchange("--rate", "400")
    # As a service manager starts it, and wherever this test is run: without a terminal.
    one = Watched(room, room.process("stream", ["setsid", *STREAM]).start())
    room.archive()
    room.wait_until_archiving()
    wait_for(lambda: len(room.connections()) == 2, what="both legs to be connected")
    for leg in "ab":
        assert one.value("binance_connection_rotations_total", leg=leg, **MANUAL) == 0
    at_start = {name: one.value(name) for name in HEALED}
    seen = [set(room.connections())]
    for times in (1, 2):
        one.service.signal(signal.SIGHUP)
        assert rotated(one, times=times) == {1}, "the new connection is there before the old goes"
        wait_for(lambda: len(room.connections()) == 2, what="the old connections to be closed")
        seen.append(set(room.connections()))
    assert all(not before & after for before, after in pairwise(seen)), seen
    asked = one.service.events("rotation_requested")
    assert [(event["by"], event["legs"], event["left_alone"]) for event in asked] == [
        ("SIGHUP", ["a", "b"], [])
    ] * 2
    replaced = [
        (event["leg"], event["reason"], event["overlapped"])
        for event in one.service.events("rotation_triggered")
    ]
    assert sorted(replaced) == [(leg, "manual_rotation", True) for leg in "aabb"]
    assert one.value("binance_reconnections_total") == 0
    assert one.value("binance_connection_errors_total") == 0
    assert {name: one.value(name) for name in HEALED} == at_start
    newest = room.stop_trading()
    room.wait_until_archived(newest)
    room.check_promise(newest)
    assert one.service.end() == 0


def test_a_stream_whose_terminal_is_closed_ends(room: Room) -> None:
    room.exchange("--rate", "100")
    environ = room.environ()
    with in_a_terminal([*STREAM], environ=environ, output=room.path / "terminal.out") as stream:
        room.processes.append(stream)
        wait_for(lambda: stream.events("Subscribed"), what="it to hear")
    assert stream.wait() == -signal.SIGHUP
    assert stream.events("rotation_requested") == []
