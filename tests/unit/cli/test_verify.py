"""``k2 verify``: what it says of a proof, and its exit code."""

import json
import time
from collections.abc import Collection
from pathlib import Path

import pytest

from k2.cli import lake
from k2.cli.lake import verify
from k2.cli.output import Output
from k2.lake import proof as proof_module
from k2.lake.proof import Proof, SymbolProof

JSON = Output(json=True)


def of(symbol: str, age_s: float) -> SymbolProof:
    newest_ts_us = time.time_ns() // 1000 - round(age_s * 1e6)
    return SymbolProof(symbol, 1, 1, 0, 7, 7, 0, 0, [], 1, newest_ts_us)


@pytest.fixture(autouse=True)
def proved(monkeypatch: pytest.MonkeyPatch) -> Proof:
    """Have a complete lake: BTCUSDT fresh, ETHUSDT at rest for ten minutes."""
    proof = Proof(True, [of("BTCUSDT", 5.0), of("ETHUSDT", 600.0)], [])
    monkeypatch.setattr(proof_module, "prove", lambda *_a, **_k: proof)
    monkeypatch.setattr(lake, "open_lake", lambda _settings: None)
    return proof


def test_a_record_at_rest_is_complete_and_its_age_is_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert verify() == 0
    lines = [line.rstrip() for line in capsys.readouterr().out.strip().splitlines()]
    assert any("ETHUSDT" in line and line.endswith("10 min ago") for line in lines)
    assert lines[-2] == "newest row 5 s ago"
    assert lines[-1].startswith("complete: ")


def test_an_age_too_great_is_exit_1_and_names_the_symbol(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert verify(max_age=60) == 1
    assert "ETHUSDT: newest row 10 min ago, at most 60 s wanted" in capsys.readouterr().out
    assert verify(max_age=700) == 0
    assert verify(max_age=60, symbols=["btcusdt"]) == 0
    assert verify(max_age=60, symbols=["ETHUSDT"]) == 1


def test_programs_get_the_ages_as_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    assert verify(max_age=60, output=JSON) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["complete"] is True
    assert told["stale"] == ["ETHUSDT"]
    assert 5 <= told["newest_age_s"] < 60
    assert 600 <= told["symbols"][1]["newest_age_s"] < 660
    assert told["symbols"][1]["newest_ts_us"] > 1_700_000_000_000_000


def test_an_empty_lake_has_no_age(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(proof_module, "prove", lambda *_a, **_k: Proof(False, [], ["BTCUSDT"]))
    assert verify(max_age=60, output=JSON) == 1
    assert json.loads(capsys.readouterr().out)["newest_age_s"] is None


@pytest.mark.parametrize(
    ("variables", "symbols", "wanted"),
    [
        ({"BINANCE_SYMBOLS": "all:USDT"}, None, set()),
        ({"BINANCE_SYMBOLS": "all:USDT,BTCUSDC"}, None, {"BTCUSDC"}),
        ({"K2_SYMBOLS_FILE": "symbols.txt"}, None, {"BTCUSDT"}),
        ({"K2_SYMBOLS_FILE": "symbols.txt"}, ["bnbusdt", "all:USDC"], {"BNBUSDT"}),
    ],
)
def test_rows_are_demanded_of_the_symbols_that_are_recorded(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    variables: dict[str, str],
    symbols: list[str] | None,
    wanted: set[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("symbols.txt").write_text("BTCUSDT\nall:USDT\n-XRPUSDT\n")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    asked: list[set[str]] = []

    def keep(_lake: object, *, configured: Collection[str]) -> Proof:
        asked.append(set(configured))
        return Proof(True, [], [])

    monkeypatch.setattr(proof_module, "prove", keep)
    assert verify(symbols=symbols) == 0
    assert asked == [wanted]


def test_the_age_is_judged_of_the_symbols_of_a_quote_asset_too() -> None:
    assert verify(max_age=60, symbols=["all:USDC"]) == 0
    assert verify(max_age=60, symbols=["all:USDT"]) == 1
