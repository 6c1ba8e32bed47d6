import json
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from k2.errors import RetryError
from k2.kafka.dead_letters import DeadLetters
from k2.kafka.letter_files import LetterFiles
from k2.kafka.letter_reading import LetterFilter, LetterReader


def write(directory: Path, day: int, n: int, **how: Any) -> None:
    said = {"error": "e", "error_type": "parse", "symbol": None, **how}
    at = datetime(2026, 1, day, 12, tzinfo=UTC)
    files = LetterFiles(directory, file_bytes=400)
    letters = DeadLetters(files, topic="t", connection_id="c", utc_now=lambda: at)
    letters.write(original={"n": n}, **said)
    letters.close()


def numbers(directory: Path, **wanted: Any) -> list[int]:
    found = LetterReader(directory).read(LetterFilter(**wanted))
    return [letter.original_message["n"] for letter in found]


def test_letters_come_oldest_first_through_all_parts_of_all_days(tmp_path: Path) -> None:
    for n in range(12):
        write(tmp_path, 14, n)
    write(tmp_path, 13, 99)
    assert len(list(tmp_path.iterdir())) > 3
    assert numbers(tmp_path) == [99, *range(12)]


def test_only_what_is_meant_comes(tmp_path: Path) -> None:
    write(tmp_path, 13, 1)
    write(tmp_path, 14, 2, symbol="BTCUSDT")
    write(tmp_path, 14, 3, error_type="void", symbol="BTCUSDT")
    assert numbers(tmp_path, since=datetime(2026, 1, 13, 13, tzinfo=UTC)) == [2, 3]
    assert numbers(tmp_path, since=datetime(2026, 1, 13, 12, tzinfo=UTC)) == [1, 2, 3]
    east = timezone(timedelta(hours=14))  # where it is the 14th by then
    assert numbers(tmp_path, since=datetime(2026, 1, 14, 2, tzinfo=east)) == [1, 2, 3]
    assert numbers(tmp_path, symbols=frozenset({"BTCUSDT"})) == [2, 3]
    assert numbers(tmp_path, error_types=frozenset({"parse"})) == [1, 2]
    both = {"symbols": frozenset({"BTCUSDT"}), "error_types": frozenset({"void"})}
    assert numbers(tmp_path, **both) == [3]


def test_lines_that_are_no_letters_are_counted_and_passed_over(tmp_path: Path) -> None:
    write(tmp_path, 14, 1)
    path = tmp_path / "binance-20260114.jsonl"
    good = json.loads(path.read_bytes())
    bad = [b'{"half', b"{}", b"\xff", b"[" * 100_000]
    bad.append(json.dumps({**good, "timestamp": "2026-01-14T12:00:00"}).encode())
    path.write_bytes(b"\n\n".join([*bad, path.read_bytes()]))
    reader = LetterReader(tmp_path)
    assert [letter.original_message["n"] for letter in reader.read()] == [1]
    assert reader.unreadable == len(bad)


def test_no_directory_has_no_letters_and_one_that_cannot_be_read_is_a_failure(
    tmp_path: Path,
) -> None:
    assert numbers(tmp_path / "nowhere") == []
    (tmp_path / "binance-20260114.jsonl").mkdir()
    with pytest.raises(RetryError, match="cannot be read"):
        numbers(tmp_path)


# The runbook's own lines, in Python's words; tests/system runs them with jq.


def test_the_runbooks_lines_work_on_the_files(tmp_path: Path) -> None:
    for symbol in ("BTCUSDT", "BTCUSDT", "ETHUSDT"):
        letters = DeadLetters(tmp_path, topic="t", connection_id="c")
        letters.write(original={"s": symbol}, error="e", error_type="parse", symbol=symbol)
        letters.close()
    letters = DeadLetters(tmp_path, topic="t", connection_id="c")
    letters.write(original={"_raw": "{oops"}, error="e", error_type="parse", symbol=None)
    letters.close()
    (path,) = tmp_path.glob("binance-*.jsonl")
    originals = [json.loads(line)["original_message"] for line in path.read_text().splitlines()]
    assert [one.get("s") for one in originals] == ["BTCUSDT", "BTCUSDT", "ETHUSDT", None]
    assert originals[3] == {"_raw": "{oops"}
