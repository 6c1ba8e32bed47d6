"""``k2 exchange`` as a child process, as others start it."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from urllib.request import urlopen

import pytest

from k2.market import StreamKind
from k2.simulator import Ledger
from unit.simulator.children import Children, Start, check_refused, line_of

MODULE = "k2.simulator.command"


@pytest.fixture
def start(children: Children) -> Start:
    return lambda *flags: children.start(MODULE, "--port", "0", *flags)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_line_is_the_url_and_a_signal_ends_it_in_time(
    start: Start, number: signal.Signals
) -> None:
    child = start()
    url = line_of(child)
    with urlopen(f"{url}/api/v3/ping") as response:
        assert response.read() == b"{}"
    asked = time.monotonic()
    child.send_signal(number)
    assert child.wait(timeout=10) == 0
    assert time.monotonic() - asked < 1.0
    assert child.communicate()[1] == ""


def test_json_makes_the_first_line_readable_by_machines(start: Start) -> None:
    first = json.loads(line_of(start("--json", "--symbols", "BTCUSDT,ETHBTC")))
    assert first["rest_url"] == f"http://127.0.0.1:{first['port']}"
    assert first["ws_url"] == f"ws://127.0.0.1:{first['port']}"
    assert first["symbols"] == ["BTCUSDT", "ETHBTC"]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--rate", "many"), "--rate"),
        (("--speed", "0"), "speed"),
        (("--symbols", "NOPEUSDT"), "NOPEUSDT"),
        (("--ping-interval", "-1"), "ping_interval"),
        (("--bogus", "1"), "--bogus"),
        (("--tape", "absent.ndjson"), "absent.ndjson"),
    ],
)
def test_a_wrong_flag_is_exit_2_and_one_line(
    start: Start, flags: tuple[str, ...], said: str
) -> None:
    child = start(*flags)
    check_refused(child, said=said)


def test_help_shows_an_example_for_every_flag_that_takes_a_value() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", MODULE, "--help"],
        capture_output=True,
        text=True,
        check=True,
        env={"COLUMNS": "200"},
    ).stdout
    flags = [
        *("host", "port", "symbols", "seed", "rate", "tape", "speed"),
        *("data-dir", "rest-delay", "ping-interval", "ping-timeout"),
    ]
    for flag in flags:
        assert f"e.g. --{flag}" in shown.replace("\n", " "), flag


def test_a_killed_exchange_goes_on_where_it_was(start: Start, tmp_path: Path) -> None:
    flags = ("--data-dir", str(tmp_path), "--rate", "2000", "--symbols", "BTCUSDT")
    known_last_id = 0
    for _ in range(3):
        child = start(*flags)
        url = line_of(child)
        deadline = time.monotonic() + 10
        rows: list[dict[str, int]] = []
        while not rows or rows[-1]["a"] < known_last_id + 300:
            assert time.monotonic() < deadline
            with urlopen(f"{url}/api/v3/aggTrades?symbol=BTCUSDT&limit=1") as response:
                rows = json.load(response)
        known_last_id = rows[-1]["a"]
        child.kill()
        child.wait()
        with Ledger.read(tmp_path) as ledger:
            for kind in StreamKind:
                ids = ledger.range("BTCUSDT", kind)
                assert ids is not None
                assert ledger.count("BTCUSDT", kind) == len(ids)
            found = ledger.range("BTCUSDT", StreamKind.AGG_TRADE)
            assert found is not None
            assert found.last_id >= known_last_id


def test_a_recording_says_what_it_plays_and_that_aggregates_are_derived(
    start: Start, real_recording: Path
) -> None:
    child = start("--tape", str(real_recording), "--speed", "10")
    line_of(child)
    stdout = child.stdout
    assert stdout is not None
    assert "BTCUSDT" in stdout.readline()
    told = stdout.readline()
    assert "9757 fills" in told
    assert "derived" in told
    assert "28040 bookTicker" in told
