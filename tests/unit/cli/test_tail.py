"""``k2 tail``: what it says when there is nothing to show."""

from typing import Any

import pytest

from k2.cli.topic import tail
from k2.errors import RejectError
from k2.ingestion import kafka_reach, known_symbols, positions_look
from k2.kafka import tail as kafka_tail


@pytest.fixture(autouse=True)
def records(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    held: list[dict[str, Any]] = []
    monkeypatch.setattr(kafka_reach, "require_kafka", lambda _bootstrap: None)
    monkeypatch.setattr(positions_look, "find_room", lambda _settings: None)
    monkeypatch.setattr(known_symbols, "require_known", lambda *_a: None)
    monkeypatch.setattr(kafka_tail, "tail_records", lambda *_a, **_k: iter(held))
    return held


def test_an_empty_topic_is_said_to_be_empty_beside_the_answer(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert tail() == 0
    told = capsys.readouterr()
    assert (told.out, told.err) == ("", "the topic holds no record yet\n")


def test_a_symbol_that_is_further_back_is_said_to_be(
    records: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    records += [{"symbol": "BTCUSDT", "offset": 1, "error": "x"}] * 3
    assert tail(symbols=["ETHUSDT"]) == 0
    told = capsys.readouterr()
    assert told.out == ""
    assert "none of the newest 3 records is of ETHUSDT" in told.err
    tail(symbols=["BTCUSDT"])
    assert capsys.readouterr().err == ""


def test_an_unknown_symbol_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_a: object) -> None:
        raise RejectError("no tape of NOPE")

    monkeypatch.setattr(known_symbols, "require_known", unknown)
    with pytest.raises(RejectError, match="no tape of NOPE"):
        tail(symbols=["NOPE"])
