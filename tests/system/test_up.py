"""``k2 up`` as a user has it: started, watched, interrupted, killed, started again."""

import gzip
import json
import os
import signal
import socket
import time
from decimal import Decimal
from functools import partial
from pathlib import Path

import psutil  # type: ignore[import-untyped]  # ships no type information
import pytest

from integration.harness import wait_for
from integration.terminal import in_a_terminal
from system.conftest import StartUp
from system.ups import START_MAX_S, up_command, up_environ

pytestmark = pytest.mark.integration

STOP_MAX_S = 10.0


def test_ctrl_c_stops_everything_in_order_and_ends_with_the_verdict(
    tmp_path: Path, start_up: StartUp
) -> None:
    up = start_up(tmp_path / "state")
    up.wait_until_said("first new rows are in the lake")
    assert "INVENTED trades" in up.said()
    children = up.children()
    assert any("binance_client" in " ".join(child.cmdline()) for child in children)
    began_s = time.monotonic()
    up.popen.send_signal(signal.SIGINT)
    assert up.popen.wait(30) == 0, up.said()
    assert time.monotonic() - began_s <= STOP_MAX_S
    verdict = up.said().strip().splitlines()[-1]
    assert verdict.startswith("complete: ")
    assert verdict.endswith(" ids, 0 duplicates, 0 declared")
    assert not any(child.is_running() for child in children)
    last = (up.state_dir / "logs" / "stream.log").read_text().strip().splitlines()[-1]
    assert json.loads(last)["event"] == "Shutdown complete"


def test_reading_commands_find_what_k2_up_runs(tmp_path: Path, start_up: StartUp) -> None:
    up = start_up(tmp_path / "state")
    up.wait_until_said("first new rows are in the lake")
    proof = json.loads(up.k2("verify", "--json").stdout)
    assert {one["symbol"] for one in proof["symbols"]} <= {"BTCUSDT", "ETHUSDT", "BNBUSDT"}
    rows = json.loads(up.k2("query", "SELECT count(*) AS n FROM trades", "--json").stdout)
    assert rows[0]["n"] > 0
    tailed = up.k2("tail", "-n", "3", "--format", "json").stdout.splitlines()
    assert len(tailed) == 3
    assert json.loads(tailed[0])["message_id"].startswith("BINANCE:")
    assert json.loads(up.k2("schema", "check", "--json").stdout)["compatible"] is True
    assert json.loads(up.k2("schema", "register", "--json").stdout)["id"] > 0
    shown = json.loads(up.k2("schema", "show", "--registered", "--json").stdout)
    assert shown["name"] == "TradeV2"
    absent = up.k2("verify", "--symbols", "NOSUCHUSDT")
    assert absent.returncode == 1
    assert "NOSUCHUSDT: configured, but no rows" in absent.stdout


def test_a_killed_k2_up_leaves_nothing_and_the_next_one_goes_on(
    tmp_path: Path, start_up: StartUp
) -> None:
    up = start_up(tmp_path / "state")
    up.wait_until_said("first new rows are in the lake")
    # A service that does not hear its parent die is what the next start has to find.
    children = up.children()
    stream = next(c for c in children if "binance_client" in " ".join(c.cmdline()))
    stream.suspend()
    up.popen.kill()
    up.popen.wait()
    again = start_up(tmp_path / "state", "--for", "8s")
    assert again.popen.wait(60) == 0, again.said()
    assert "left running by an earlier k2" in again.said()
    assert again.said().strip().splitlines()[-1].startswith("complete: ")
    assert not stream.is_running()


def test_a_service_that_is_killed_is_started_again(tmp_path: Path, start_up: StartUp) -> None:
    up = start_up(tmp_path / "state")
    up.wait_until_said("first new rows are in the lake")
    for word in ("binance_client", "archive", "kafka.Kafka", "apicurio-registry", "exchange"):
        victim = up.pid_of(word)
        assert victim is not None, word
        os.kill(victim, signal.SIGKILL)
        again = partial(up.pid_after, word, victim)
        wait_for(again, what=f"{word} to be started again")
    up.popen.send_signal(signal.SIGINT)
    assert up.popen.wait(30) == 0, up.said()
    assert up.said().strip().splitlines()[-1].startswith("complete: ")


def test_a_symbol_the_exchange_does_not_list_ends_k2_up_and_leaves_no_trace(
    tmp_path: Path, start_up: StartUp
) -> None:
    state_dir = tmp_path / "state"
    up = start_up(state_dir, "--symbols", "BTCUSDT", "NOSUCH")
    assert up.popen.wait(START_MAX_S) == 2
    assert up.said().strip().splitlines()[-1] == (
        "k2 up: the exchange does not list NOSUCH, named by --symbols; leave NOSUCH out there. "
        "Nothing was changed"
    )
    file = state_dir / "symbols-lake-simulated.txt"
    assert not file.exists()
    assert not (state_dir / "k2.env").exists()
    # A file somebody wrote by hand: the capture refuses it, and tells what mends it.
    file.write_text("BTCUSDT\nNOSUCH\n")
    refused = start_up(state_dir)
    assert refused.popen.wait(START_MAX_S) == 2
    last = refused.said().strip().splitlines()[-1]
    assert "does not list NOSUCH" in last
    command = f"symbols remove NOSUCH --file {file}"
    assert f"`k2 {command}`" in last
    assert up.k2(*command.split()).returncode == 0
    mended = start_up(state_dir, "--for", "6s")
    assert mended.popen.wait(START_MAX_S) == 0, mended.said()
    assert mended.said().strip().splitlines()[-1].startswith("complete: ")


def test_down_with_delete_leaves_nothing_of_what_a_run_made(
    tmp_path: Path, start_up: StartUp
) -> None:
    up = start_up(tmp_path / "state", "--symbols", "BTCUSDT")
    up.wait_until_said("first new rows are in the lake")
    running = up.k2("down", "--delete")
    assert (running.returncode, "end it with Ctrl-C" in running.stderr) == (1, True)
    second = start_up(tmp_path / "state", ports="fixed")
    assert second.popen.wait(START_MAX_S) == 1
    assert f"another k2 (process {up.popen.pid}) runs on" in second.said()
    up.popen.send_signal(signal.SIGINT)
    assert up.popen.wait(30) == 0, up.said()
    deleted = up.k2("down", "--delete")
    assert deleted.returncode == 0, deleted.stderr
    assert "the LAKE lake-simulated" in deleted.stdout
    assert "left alone" not in deleted.stdout
    assert not up.state_dir.exists()


def test_a_port_in_use_is_one_line_naming_the_holder_and_the_flag(
    tmp_path: Path, start_up: StartUp
) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        port = held.getsockname()[1]
        up = start_up(tmp_path / "state", "--stack-only", "--kafka-port", str(port), ports="fixed")
        assert up.popen.wait(30) == 1
    lines = up.said().strip().splitlines()
    assert len(lines) == 1
    assert f"port {port} (Kafka) is in use by process {os.getpid()}" in lines[0]
    assert "--kafka-port" in lines[0]


def test_a_recording_is_recorded_to_the_last_digit(
    tmp_path: Path, start_up: StartUp, recording: Path
) -> None:
    up = start_up(
        tmp_path / "state",
        *("--tape", str(recording), "--stream", "trade", "--speed", "20", "--for", "26s"),
    )
    assert up.popen.wait(120) == 0, up.said()
    assert "complete: 9,757 ids, 0 duplicates, 0 declared" in up.said()
    proof = json.loads(up.k2("verify", "--json").stdout)["symbols"][0]
    assert (proof["rows"], proof["distinct"], proof["duplicates"]) == (9757, 9757, 0)
    assert proof["stream_rows"] / proof["rows"] >= 0.99
    sql = (
        "SELECT taker_side, sum(price * quantity) AS notional, sum(quantity) AS quantity "
        "FROM trades GROUP BY taker_side"
    )
    rows = json.loads(up.k2("query", sql, "--json").stdout)
    found = {r["taker_side"]: (Decimal(r["notional"]), Decimal(r["quantity"])) for r in rows}
    assert found == sums_of(recording)


def sums_of(recording: Path) -> dict[str, tuple[Decimal, Decimal]]:
    """Add up the file with nothing of the product: sum of p*q and of q, per taker side."""
    notional = {"BUY": Decimal(0), "SELL": Decimal(0)}
    quantity = {"BUY": Decimal(0), "SELL": Decimal(0)}
    with gzip.open(recording, "rt", encoding="utf-8") as lines:
        for line in lines:
            event = json.loads(line.partition(" ")[2]).get("data", {})
            if event.get("e") == "trade":
                side = "SELL" if event["m"] else "BUY"
                notional[side] += Decimal(event["p"]) * Decimal(event["q"])
                quantity[side] += Decimal(event["q"])
    return {side: (notional[side], quantity[side]) for side in notional}


def runs(process: psutil.Process) -> bool:
    """Say whether it has not ended; nobody may be there to collect an orphan's exit code."""
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE) and process.is_running()
    except psutil.NoSuchProcess:
        return False


def test_a_k2_up_whose_terminal_is_closed_leaves_no_process(tmp_path: Path) -> None:
    environ = up_environ(tmp_path / "state")
    with in_a_terminal(up_command(), environ=environ, output=tmp_path / "up.out") as up:
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
            deadline_s=60,
        )
    finally:
        for child in children:
            if runs(child):
                child.kill()
    said = (tmp_path / "state" / "logs" / "stream.log").read_text(encoding="utf-8")
    assert "rotation_requested" not in said
