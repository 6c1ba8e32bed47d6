"""The first runbook's start, as it is written there: by the file, with its arguments."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from integration.harness import Room, read_values, wait_for

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
CLIENT = ["src/k2/ingestion/binance_client.py"]


def test_the_client_is_started_by_its_file_as_the_runbook_writes(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)  # the runbook's path is relative
    room.exchange("--rate", "200")
    address = room.stack.address
    words = ["--symbols", *room.symbols, "--kafka-bootstrap", address.bootstrap]
    words += ["--schema-registry", address.registry_url]
    stream = room.process("by-file", [sys.executable, *CLIENT, *words])
    for name in ("BINANCE_SYMBOLS", "KAFKA_BOOTSTRAP", "SCHEMA_REGISTRY_URL"):
        del stream.environ[name]
    began_s = time.monotonic()
    stream.start()
    # kafka-console-consumer --max-messages 5
    wait_for(lambda: stream.events("took_over"), what="the capture to write")
    wait_for(lambda: len(read_values(address.bootstrap, room.topic)) >= 5, what="five trades")
    assert time.monotonic() - began_s < 30
    (subscribed, _) = wait_for(
        lambda: both if len(both := stream.events("Subscribed")) == 2 else None, what="both legs"
    )
    assert subscribed["symbols"] == list(room.symbols)
    # As wide as into a pipe of a shell, which has no COLUMNS.
    environ = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    seen = subprocess.run(["ps", "aux"], env=environ, capture_output=True, text=True, check=True)
    assert stream.popen is not None
    lines = [line.split(maxsplit=10) for line in seen.stdout.splitlines()]
    (command,) = [line[10] for line in lines if line[1] == str(stream.popen.pid)]
    assert "binance_client" in command  # what the runbook greps for
    assert stream.end() == 0


def test_a_second_signal_ends_it_at_once(room: Room) -> None:
    room.exchange("--rate", "200")
    stream = room.stream()
    wait_for(lambda: stream.events("tape_resumed"), what="the capture to write")
    broker = room.stack.pids["kafka"]
    os.kill(broker, signal.SIGSTOP)
    try:
        stream.signal(signal.SIGTERM)
        wait_for(lambda: stream.events("Shutdown begins"), what="the end to begin")
        assert stream.running, "what waits is to be committed"
        stream.signal(signal.SIGTERM)
        assert stream.wait(deadline_s=2) == 1
    finally:
        os.kill(broker, signal.SIGCONT)
    assert not stream.events("Shutdown complete")


def test_version_check_and_configuration_open_no_socket(room: Room) -> None:
    """There is neither an exchange nor a Kafka at these addresses."""
    room.exchange_url = "http://127.0.0.1:1"

    def client(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *CLIENT, *words],
            cwd=ROOT,
            env=room.environ() | {"KAFKA_BOOTSTRAP": "127.0.0.1:1"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    assert client("--version").returncode == 0
    assert client("--check").returncode == 0
    assert client("--symbols", "BTC/USDT", "--check").returncode == 2
    shown = client("--print-config")
    assert shown.returncode == 0
    assert "KAFKA_BOOTSTRAP=127.0.0.1:1" in shown.stdout
