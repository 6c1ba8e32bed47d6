"""Real logrotate with the shipped file, under a running ``k2 stream``: no line is lost."""

import grp
import gzip
import json
import os
import pwd
import re
import subprocess
import sys
from itertools import count
from pathlib import Path

import pytest

from integration.harness import Process, Room, wait_for
from system.conftest import program

pytestmark = pytest.mark.integration

SHIPPED = Path(__file__).parents[2] / "config" / "logrotate" / "binance_client"
OWNER = re.compile(r"create 0644 k2 k2")
ROTATIONS = 5
LINES_BETWEEN = 8
"""A minute has 60 lines of rejects at most; the rest is counted, not logged."""


FAST_LINES = 30_000

# The services' own logging, with nothing else to do.
WRITER = f"""
import sys
from pathlib import Path
import structlog
from k2.observability.logging import configure_logging
configure_logging(service="stream", level="INFO", file=Path(sys.argv[1]))
log = structlog.get_logger()
for number in range({FAST_LINES}):
    log.info("line", number=number)
"""


class Rotation:
    """The shipped file on a room's log, with a state of its own."""

    def __init__(self, log: Path) -> None:
        """Copy it; only the path and the owner are this test's."""
        self.log = log
        log.parent.mkdir(exist_ok=True)
        self._config = log.parent / "logrotate.conf"
        self._state = log.parent / "logrotate.state"
        text = SHIPPED.read_text("utf-8")
        assert text.count("/var/log/binance_client.log") == 1
        assert OWNER.search(text)
        text = text.replace("/var/log/binance_client.log", str(log))
        text = OWNER.sub(f"create 0644 {_owner()}", text)
        self._config.write_text(text, encoding="utf-8")
        self._config.chmod(0o644)  # logrotate refuses one that others may write

    def turn(self, *flags: str) -> None:
        """Rotate, or look whether a rotation is due."""
        log_dir = self.log.parent
        log_dir.chmod(0o755)
        subprocess.run(
            [program("logrotate"), "--state", str(self._state), *flags, str(self._config)],
            check=True,
            capture_output=True,
            timeout=60,
        )

    def lines(self) -> list[str]:
        """Return every line of the log and what was rotated, oldest first."""
        rotated = self.log.parent.glob(f"{self.log.name}.*")
        files = sorted(rotated, key=lambda path: -int(path.name.split(".")[2]))
        found: list[str] = []
        for path in [*files, self.log]:
            raw = path.read_bytes()
            text = gzip.decompress(raw) if path.suffix == ".gz" else raw
            found += text.decode().splitlines()
        return found


def test_no_line_of_a_running_stream_is_lost_in_rotations(room: Room) -> None:
    rotation = Rotation(room.path / "logs" / "binance_client.log")
    room.extra["K2_LOG_FILE"] = str(rotation.log)
    room.exchange("--rate", "200")
    stream = room.stream()
    wait_for(lambda: stream.events("tape_begins"), what="the stream to record")
    numbers = count()
    sent: list[int] = []
    for _ in range(ROTATIONS):
        order_lines(room, numbers, sent)
        rotation.turn("--force")
        order_lines(room, numbers, sent)
        told = wait_for(lambda: told_all(rotation.lines(), sent), what=f"lines up to {sent[-1]}")
    assert told == sent
    wait_for(
        lambda: rotation.log.exists() and rotation.log.stat().st_size, what="a line in the new file"
    )
    assert rotation.log.stat().st_mode & 0o777 == 0o644
    names = {path.name for path in rotation.log.parent.glob("binance_client.log.*")}
    assert names == {
        "binance_client.log.1",  # not compressed before nobody writes to it any more
        *(f"binance_client.log.{n}.gz" for n in range(2, ROTATIONS + 1)),
    }
    assert stream.end() == 0
    # Beside the ordered lines: every line that went to stdout went to the file, in the same order.
    assert [json.loads(line) for line in rotation.lines()] == stdout_of(stream)
    assert "Shutdown complete" in rotation.log.read_text("utf-8").splitlines()[-1]


def test_no_line_is_lost_however_fast_lines_are_written(room: Room) -> None:
    rotation = Rotation(room.path / "logs" / "binance_client.log")
    writer = room.process("writer", [sys.executable, "-c", WRITER, str(rotation.log)]).start()
    wait_for(lambda: rotation.log.exists() and rotation.log.stat().st_size, what="lines")
    turns = 0
    while writer.running:
        if turns < 6:  # the seventh would be the last that is kept
            rotation.turn("--force")
            turns += 1
    assert turns == 6, "rotated while lines were written"
    # A turn that finds no line yet leaves the empty file alone.
    assert 2 <= len(list(rotation.log.parent.glob("binance_client.log.*"))) <= turns
    assert [json.loads(line)["number"] for line in rotation.lines()] == list(range(FAST_LINES))


def test_seven_are_kept_a_missing_and_an_empty_file_are_left_alone(room: Room) -> None:
    log = room.path / "logs" / "binance_client.log"
    rotation = Rotation(log)
    rotation.turn("--force")  # missingok
    assert not list(log.parent.glob("binance_client.log*"))
    log.touch()
    rotation.turn("--force")  # notifempty
    assert [path.name for path in log.parent.glob("binance_client.log*")] == [log.name]
    for number in range(10):
        log.write_text(f"{number}\n")
        rotation.turn("--force")
    assert len(list(log.parent.glob("binance_client.log.*"))) == 7
    log.write_text("today\n")
    rotation.turn()  # daily: not again today
    assert log.read_text() == "today\n"


def order_lines(room: Room, numbers: "count[int]", sent: list[int]) -> None:
    """Have the service log lines, each with the next number."""
    for _ in range(LINES_BETWEEN // 2):
        number = next(numbers)
        sent.append(number)
        text = json.dumps({"e": f"line-{number}-end"})
        order = {"fault": "malformed", "text": text, "which": "oldest"}
        room.control("stream-faults", order)


def told_all(lines: list[str], sent: list[int]) -> list[int] | None:
    """Return the numbers logged, once the last one is."""
    told = [
        int(found[1])
        for line in lines
        if (found := re.search(r"line-(\d+)-end", json.loads(line)["event"]))
    ]
    return told if sent[-1] in told else None


def stdout_of(stream: Process) -> list[object]:
    return [json.loads(line) for line in stream.log().splitlines() if line.startswith("{")]


def _owner() -> str:
    """Return this user and group, as logrotate wants them."""
    return f"{pwd.getpwuid(os.getuid()).pw_name} {grp.getgrgid(os.getgid()).gr_name}"
