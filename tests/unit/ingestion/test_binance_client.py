"""``k2 stream``: its settings shown, and what its exit code says."""

import asyncio
import json
import shlex
from typing import Any

import pytest

from k2.errors import StopError
from k2.ingestion import binance_client
from k2.ingestion.listing import UnlistedError
from k2.ingestion.supervision import ExitCode, UnavailableError
from k2.market.wanted import Wanted
from k2.settings import Settings

URL = "wss://a-host-with-a-very-long-name.example.com:9443/and/an/even/longer/path/than/that/ws"


@pytest.fixture(autouse=True)
def nothing_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BINANCE_WS_URL", URL)


def test_in_a_pipe_the_settings_are_whole_lines_a_shell_can_read(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert binance_client.stream(symbols=["BTCUSDT"], print_config=True) == 0
    lines = [line.partition("=") for line in capsys.readouterr().out.splitlines()]
    told = {name: shlex.split(value or "''")[0] for name, _, value in lines}
    assert told["BINANCE_WS_URL"] == URL
    assert told["BINANCE_SYMBOLS"] == "BTCUSDT"
    assert told["K2_SYMBOLS_FILE"] == ""


def test_or_json_with_their_meaning(capsys: pytest.CaptureFixture[str]) -> None:
    assert binance_client.stream(print_config=True, json=True) == 0
    told = {one["variable"]: one for one in json.loads(capsys.readouterr().out)}
    assert told["BINANCE_WS_URL"]["value"] == URL
    assert "WebSocket address" in told["BINANCE_WS_URL"]["meaning"]


@pytest.mark.parametrize(
    ("problem", "code", "reason"),
    [
        (UnlistedError(["NOSUCH"]), ExitCode.CONFIGURATION, "NOSUCH, named by --symbols"),
        (ExceptionGroup("g", [UnlistedError(["NOSUCH"])]), ExitCode.CONFIGURATION, "leave NOSUCH"),
        (UnavailableError("no Kafka"), ExitCode.DEPENDENCY_UNAVAILABLE, "no Kafka"),
        (StopError("two tapes"), ExitCode.FAILED, "two tapes"),
    ],
)
def test_why_it_ended_is_logged_and_is_the_exit_code(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    problem: Exception,
    code: ExitCode,
    reason: str,
) -> None:
    async def run_capture(*_a: Any, **_k: Any) -> ExitCode:
        raise problem

    monkeypatch.setattr(binance_client, "run_capture", run_capture)
    monkeypatch.setattr(binance_client, "require_own_ports", lambda _wanted: None)
    settings = Settings()
    assert asyncio.run(binance_client._run(settings, Wanted(), fail_fast=False)) is code
    told = capsys.readouterr()
    assert reason in told.out + told.err
