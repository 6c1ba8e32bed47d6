import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from k2.kafka.dead_letters import DeadLetters


def _letters(directory: Path) -> DeadLetters:
    return DeadLetters(directory, topic="market.crypto.trades.binance", connection_id="a")


def _write(letters: DeadLetters, original: dict[str, Any]) -> None:
    letters.write(
        original=original, error="Invalid field: x", error_type="invalid_field", symbol="BTCUSDT"
    )


def _lines(directory: Path) -> list[Any]:
    (path,) = directory.glob("*.jsonl")
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def test_a_letter_is_one_line_of_the_day_with_the_contracts_fields(tmp_path: Path) -> None:
    letters = _letters(tmp_path / "dlq")
    before = datetime.now(UTC)
    _write(letters, {"s": "BTCUSDT", "p": "x"})
    _write(letters, {"_raw": "not\njson \u2028 币"})
    (path,) = (tmp_path / "dlq").iterdir()
    assert re.fullmatch(r"binance-\d{8}\.jsonl", path.name)
    assert path.name[8:16] in {f"{before:%Y%m%d}", f"{datetime.now(UTC):%Y%m%d}"}
    first, second = _lines(tmp_path / "dlq")
    assert set(first) == {
        "timestamp", "error", "error_type", "topic", "symbol", "connection_id", "sequence",
        "schema_version", "original_message",
    }  # fmt: skip
    assert before <= datetime.fromisoformat(first["timestamp"]) <= datetime.now(UTC)
    assert first["original_message"] == {"s": "BTCUSDT", "p": "x"}
    assert second["original_message"] == {"_raw": "not\njson \u2028 币"}
    assert (first["sequence"], second["sequence"]) == (1, 2)
    assert (first["error_type"], first["schema_version"]) == ("invalid_field", "v2")
    assert (letters.written, letters.failed) == (2, 0)


def test_letters_are_added_to_what_an_earlier_process_wrote(tmp_path: Path) -> None:
    _write(_letters(tmp_path), {"n": 1})
    _write(_letters(tmp_path), {"n": 2})
    assert [line["original_message"]["n"] for line in _lines(tmp_path)] == [1, 2]


def test_numbers_of_any_size_can_be_kept(tmp_path: Path) -> None:
    _write(_letters(tmp_path), {"a": 10**30, "f": 1.5})
    assert _lines(tmp_path)[0]["original_message"] == {"a": 10**30, "f": 1.5}


def test_a_place_that_cannot_be_written_costs_letters_only(tmp_path: Path) -> None:
    place = tmp_path / "a file"
    place.write_text("in the way")
    letters = _letters(place / "dlq")
    _write(letters, {"n": 1})
    _write(letters, {"n": 2})
    assert (letters.written, letters.failed) == (0, 2)


def test_a_full_disk_costs_letters_only(tmp_path: Path) -> None:
    device = Path("/dev/full")
    if not device.exists():
        pytest.skip("this system has no /dev/full")
    letters = _letters(tmp_path)
    (tmp_path / f"binance-{datetime.now(UTC):%Y%m%d}.jsonl").symlink_to(device)
    _write(letters, {"n": 1})
    assert (letters.written, letters.failed) == (0, 1)
