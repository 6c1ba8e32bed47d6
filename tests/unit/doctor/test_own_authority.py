"""An exchange that an authority of our own vouches for: the doctor believes whom k2 believes."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from k2.cli import main
from k2.simulator import Exchange, ExchangeConfig
from unit.doctor.servers import encrypted, in_background, make_authority


@pytest.fixture
def port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Return the port of an exchange in a box that speaks TLS, as the settings have it."""
    context = make_authority(tmp_path).context("127.0.0.1")
    config = ExchangeConfig(symbols=("BTCUSDT",), rate=100)
    with (
        in_background(Exchange(config)) as exchange,
        in_background(encrypted(context, urlsplit(exchange.rest_url).port or 0)) as number,
    ):
        monkeypatch.setenv("BINANCE_WS_URL", f"wss://127.0.0.1:{number}/ws")
        monkeypatch.setenv("BINANCE_REST_URL", f"https://127.0.0.1:{number}")
        monkeypatch.setenv("BINANCE_SYMBOLS", "BTCUSDT")
        monkeypatch.setenv("K2_STATE_DIR", str(tmp_path / "state"))
        yield number


def _doctor(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[int, list[dict[str, Any]]]:
    monkeypatch.setattr("sys.argv", ["k2", "doctor", "ws", "rest", "--json"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert isinstance(ended.value.code, int)
    return ended.value.code, json.loads(capsys.readouterr().out)["findings"]


def test_an_authority_the_settings_name_is_believed_by_every_look(
    port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BINANCE_TLS_CA", str(tmp_path / "authority.pem"))
    code, found = _doctor(monkeypatch, capsys)
    assert {one["level"] for one in found} == {"ok"}, found
    assert code == 0
    told = [(one["subject"], one["check"].removeprefix(f"127.0.0.1:{port} ")) for one in found]
    for line in (("ws", "TLS"), ("ws", "first trade"), ("rest", "TLS"), ("rest", "ping")):
        assert line in told
    assert [one["seen"].count("by doctor test authority") for one in found].count(1) == 2


def test_without_it_both_fail_at_the_certificate_and_the_fix_names_the_setting(
    port: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, found = _doctor(monkeypatch, capsys)
    assert code == 1
    failed = [one for one in found if one["level"] == "fail"]
    assert [one["check"] for one in failed] == [f"127.0.0.1:{port} TLS"] * 2
    assert all("BINANCE_TLS_CA" in one["fix"] for one in failed)


def test_where_nothing_is_verified_that_is_a_warning_and_the_rest_is_looked_at(
    port: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BINANCE_TLS_VERIFY", "false")
    code, found = _doctor(monkeypatch, capsys)
    assert code == 0
    warned = [one for one in found if one["level"] != "ok"]
    assert [(one["level"], one["check"]) for one in warned] == [
        ("warn", f"127.0.0.1:{port} TLS")
    ] * 2
    assert all("not verified (BINANCE_TLS_VERIFY=false)" in one["seen"] for one in warned)
    assert f"127.0.0.1:{port} first trade" in {one["check"] for one in found}


@pytest.mark.usefixtures("port")
def test_a_file_without_certificates_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = tmp_path / "empty.pem"
    empty.touch()
    monkeypatch.setenv("BINANCE_TLS_CA", str(empty))
    code, found = _doctor(monkeypatch, capsys)
    assert code == 1
    assert [(one["check"], one["level"]) for one in found] == [("certificates", "fail")] * 2
    assert all(f"BINANCE_TLS_CA={empty}" in one["seen"] for one in found)
