"""``k2 dlq``: what it prints, and what it asks for."""

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from k2.cli import main
from k2.ingestion import dlq_replay
from k2.ingestion.dlq_judging import Outcome, Verdict
from k2.kafka.dead_letters import DeadLetters
from k2.kafka.letter_reading import Letter
from k2.settings import Settings


@pytest.fixture(autouse=True)
def directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("K2_DLQ_DIR", str(tmp_path / "dlq"))
    monkeypatch.setenv("K2_STATE_DIR", str(tmp_path))
    return tmp_path / "dlq"


@pytest.fixture
def letters(directory: Path) -> None:
    for day, kind, symbol in (
        (13, "parse", None),
        (14, "void", "BTCUSDT"),
        (14, "void", "BTCUSDT"),
        (14, "parse", None),
    ):
        at = datetime(2026, 1, day, 12, tzinfo=UTC)
        one = DeadLetters(directory, topic="t", connection_id="c", utc_now=partial(_same, at))
        original = {"_raw": "{oops [bold]"} if symbol is None else {"s": symbol}
        one.write(original=original, error=f"why {kind}", error_type=kind, symbol=symbol)
        one.close()


def _same(at: datetime) -> datetime:
    return at


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr("sys.argv", ["k2", "dlq", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert isinstance(ended.value.code, int)
    return ended.value.code


@pytest.mark.usefixtures("letters")
def test_letters_are_counted_by_day_type_and_symbol(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "list") == 0
    out = capsys.readouterr().out
    assert "4 dead letters in" in out
    assert "newest: 2026-01-14T12:00:00+00:00 why parse" in out
    assert run(monkeypatch, "list", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert [(c["day"], c["error_type"], c["symbol"], c["letters"]) for c in told["counts"]] == [
        ("2026-01-13", "parse", None, 1),
        ("2026-01-14", "parse", None, 1),
        ("2026-01-14", "void", "BTCUSDT", 2),
    ]
    assert run(monkeypatch, "list", "--since", "2026-01-14", "--type", "parse", "--json") == 0
    assert json.loads(capsys.readouterr().out)["letters"] == 1


@pytest.mark.usefixtures("letters")
def test_the_newest_letters_are_shown_as_they_came(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "show", "--limit", "1") == 0
    out = capsys.readouterr().out
    assert out == '2026-01-14T12:00:00+00:00 parse -: why parse\n{"_raw":"{oops [bold]"}\n'
    assert run(monkeypatch, "show", "--symbol", "btcusdt", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert [one["original_message"] for one in told] == [{"s": "BTCUSDT"}] * 2


def test_no_letters_are_good_news(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "list") == 0
    assert capsys.readouterr().out.startswith("0 dead letters in ")
    assert run(monkeypatch, "show") == 0
    assert capsys.readouterr().out.startswith("no dead letters of that kind")


def verdict(outcome: Outcome, source_id: int) -> Verdict:
    return Verdict("2026-01-14T12:00:00+00:00", "c", 1, "BTCUSDT", source_id, outcome, "why not")


@pytest.mark.usefixtures("letters")
@pytest.mark.parametrize(("words", "asked"), [(["--dry-run"], "judge_letters"), ([], "replay")])
def test_a_replay_says_what_became_of_the_letters_and_a_dry_run_asks_for_nothing(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    asked: str,
) -> None:
    read: list[str] = []

    def answer(_settings: Settings, letters: Iterable[Letter], **_how: Any) -> list[Verdict]:
        read.extend(letter.error_type for letter in letters)
        return [verdict(Outcome.RECORDED, 1), verdict(Outcome.STILL_BAD, 2)]

    def refuse(*_what: Any) -> list[Verdict]:
        pytest.fail("asked for the other")

    for name in ("judge_letters", "replay"):
        monkeypatch.setattr(dlq_replay, name, answer if name == asked else refuse)
    assert run(monkeypatch, "replay", "--type", "void", *words) == 0
    out = capsys.readouterr().out
    assert read == ["void", "void"]
    assert "2 letters: 1 recorded, 1 still bad" in out
    assert "why not" in out
    assert run(monkeypatch, "replay", "--json", *words) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["counts"] == {"recorded": 1, "still bad": 1}
    assert [one["outcome"] for one in told["letters"]] == ["recorded", "still bad"]
