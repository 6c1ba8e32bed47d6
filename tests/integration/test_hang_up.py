"""SIGHUP: new connections where there is no terminal, the end where one was closed."""

import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import psutil  # type: ignore[import-untyped]  # ships no type information
import pytest

from integration.harness import Process, Room, wait_for
from integration.watched import Watched
from k2.ingestion import binance_client

pytestmark = pytest.mark.integration

STREAM = (sys.executable, binance_client.__file__)
MANUAL = {"reason": "manual_rotation"}
HEALED = ("k2_holes_healed_total", "k2_trades_healed_total")


def connections(room: Room) -> set[int]:
    """Return the numbers of the exchange's open connections."""
    with urllib.request.urlopen(f"{room.exchange_url}/control/status", timeout=10) as reply:
        text = reply.read().decode()
    return {int(number) for number in re.findall(r'"number": ?(\d+), ?"age_s"', text)}


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
    wait_for(lambda: len(connections(room)) == 2, what="both legs to be connected")
    for leg in "ab":
        assert one.value("binance_connection_rotations_total", leg=leg, **MANUAL) == 0
    at_start = {name: one.value(name) for name in HEALED}
    seen = [connections(room)]
    for times in (1, 2):
        one.service.signal(signal.SIGHUP)
        assert rotated(one, times=times) == {1}, "the new connection is there before the old goes"
        wait_for(lambda: len(connections(room)) == 2, what="the old connections to be closed")
        seen.append(connections(room))
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


@contextmanager
def in_a_terminal(
    argv: list[str], *, environ: Mapping[str, str], output: Path
) -> Iterator[Process]:
    """Run something that a terminal controls; the terminal is closed with the context."""
    master, slave = os.openpty()
    process = Process(argv, dict(environ), output)
    take_terminal = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
    with output.open("ab") as said:
        process.popen = subprocess.Popen(
            [sys.executable, "-c", take_terminal + "os.execv(sys.argv[1], sys.argv[1:])", *argv],
            env=process.environ,
            stdin=slave,
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    os.close(slave)
    try:
        yield process
    finally:
        os.close(master)


def test_a_stream_whose_terminal_is_closed_ends(room: Room) -> None:
    room.exchange("--rate", "100")
    environ = room.environ()
    with in_a_terminal([*STREAM], environ=environ, output=room.path / "terminal.out") as stream:
        room.processes.append(stream)
        wait_for(lambda: stream.events("Subscribed"), what="it to hear")
    assert stream.wait() == -signal.SIGHUP
    assert stream.events("rotation_requested") == []


def runs(process: psutil.Process) -> bool:
    """Say whether it has not ended; nobody may be there to collect an orphan's exit code."""
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE) and process.is_running()
    except psutil.NoSuchProcess:
        return False


def test_a_k2_up_whose_terminal_is_closed_leaves_no_process(tmp_path: Path) -> None:
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("K2_", "BINANCE_", "KAFKA_", "SCHEMA_"))
    }
    environ = {**kept, "K2_STATE_DIR": str(tmp_path / "state"), "K2_DLQ_DIR": str(tmp_path / "dlq")}
    argv = [sys.executable, "-m", "k2", "up", "--exchange", "built-in", "--ports", "auto"]
    with in_a_terminal(argv, environ=environ, output=tmp_path / "up.out") as up:
        wait_for(lambda: "first new rows" in up.log() or not up.running, what="rows in the lake")
        assert up.popen is not None
        assert up.running, up.log()
        children = psutil.Process(up.popen.pid).children(recursive=True)
    try:
        assert {"kafka", "registry", "exchange", "stream", "archive"} <= {
            path.stem for path in (tmp_path / "state" / "pids").iterdir()
        }
        assert up.wait() == -signal.SIGHUP
        wait_for(
            lambda: not any(runs(child) for child in children),
            what=f"its children to end: {children}",
            deadline_s=20,
        )
    finally:
        for child in children:
            if runs(child):
                child.kill()
    said = (tmp_path / "state" / "logs" / "stream.log").read_text(encoding="utf-8")
    assert "rotation_requested" not in said
