import json
import re
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from structlog.testing import capture_logs

from k2.kafka import dead_letters
from k2.kafka.dead_letters import Counted, DeadLetters
from k2.kafka.letter_files import Fsync, LetterFiles

NIGHT = datetime(2026, 1, 14, 23, 59, 59, tzinfo=UTC)


class Count:
    """What became of letters, as it was told."""

    def __init__(self) -> None:
        self.written: Counter[str] = Counter()
        self.not_written = 0
        self.not_sent = 0

    @property
    def hooks(self) -> Counted:
        def not_written(letters: int) -> None:
            self.not_written += letters

        def not_sent(letters: int) -> None:
            self.not_sent += letters

        return Counted(lambda kind: self.written.update([kind]), not_written, not_sent)


def _letters(place: Path | LetterFiles, **how: Any) -> DeadLetters:
    return DeadLetters(place, topic="market.crypto.trades.binance", connection_id="a", **how)


def _write(letters: DeadLetters, original: dict[str, Any]) -> None:
    letters.write(
        original=original, error="Invalid field: x", error_type="invalid_field", symbol="BTCUSDT"
    )


def _lines(directory: Path) -> list[Any]:
    files = sorted(directory.glob("*.jsonl"))
    return [json.loads(line) for path in files for line in path.read_bytes().splitlines()]


def test_a_letter_is_one_line_of_the_day_with_the_contracts_fields(tmp_path: Path) -> None:
    letters = _letters(tmp_path / "dlq")
    before = datetime.now(UTC)
    _write(letters, {"s": "BTCUSDT", "p": "x"})
    _write(letters, {"_raw": "not\njson \u2028 币"})
    assert letters.flush()
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
    assert first["topic"] == "market.crypto.trades.binance"
    assert (letters.written, letters.failed) == (2, 0)


def test_a_letter_may_be_about_another_topic(tmp_path: Path) -> None:
    letters = _letters(tmp_path)
    letters.write(original={}, error="e", error_type="serialize", symbol=None, topic="t.gaps")
    assert letters.flush()
    assert _lines(tmp_path)[0]["topic"] == "t.gaps"


def test_letters_are_added_to_what_an_earlier_process_wrote(tmp_path: Path) -> None:
    for n in (1, 2):
        letters = _letters(tmp_path)
        _write(letters, {"n": n})
        letters.close()
    assert [line["original_message"]["n"] for line in _lines(tmp_path)] == [1, 2]


def test_numbers_of_any_size_can_be_kept(tmp_path: Path) -> None:
    letters = _letters(tmp_path)
    _write(letters, {"a": 10**30, "f": 1.5})
    assert letters.flush()
    assert _lines(tmp_path)[0]["original_message"] == {"a": 10**30, "f": 1.5}


def test_a_letter_belongs_to_the_day_of_its_own_time(tmp_path: Path) -> None:
    now = [NIGHT]
    letters = _letters(tmp_path, utc_now=lambda: now[0])
    _write(letters, {"n": 1})
    now[0] += timedelta(seconds=1)
    _write(letters, {"n": 2})
    assert letters.flush()
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["binance-20260114.jsonl", "binance-20260115.jsonl"]
    assert [line["original_message"]["n"] for line in _lines(tmp_path)] == [1, 2]


def test_what_becomes_of_each_letter_is_told(tmp_path: Path) -> None:
    count = Count()
    letters = _letters(tmp_path, counted=count.hooks)
    for _ in range(3):
        _write(letters, {})
    assert letters.flush()
    assert count.written == {"invalid_field": 3}
    (tmp_path / "in the way").write_text("")
    other = _letters(tmp_path / "in the way" / "dlq", counted=count.hooks)
    _write(other, {})
    assert other.flush()
    assert (count.not_written, other.written, other.failed) == (1, 0, 1)


def test_a_full_disk_costs_letters_and_one_log_line_a_minute(tmp_path: Path) -> None:
    device = Path("/dev/full")
    if not device.exists():
        pytest.skip("this system has no /dev/full")
    now_s, count = [1000.0], Count()
    letters = _letters(
        tmp_path, utc_now=lambda: NIGHT, monotonic_s=lambda: now_s[0], counted=count.hooks
    )
    (tmp_path / "binance-20260114.jsonl").symlink_to(device)
    with capture_logs() as logs:
        for n in range(5):
            _write(letters, {"n": n})
            assert letters.flush()
        assert [(log["event"], log["letters"]) for log in logs] == [("dead_letter_write_failed", 1)]
        now_s[0] += 60
        _write(letters, {})
        assert letters.flush()
    assert [log["letters"] for log in logs] == [1, 5]
    assert "No space left" in logs[0]["reason"]
    assert (letters.written, letters.failed, count.not_written) == (0, 6, 6)


class StuckFiles(LetterFiles):
    """A disk that hangs until it is told to go on."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.hangs, self.goes_on = Event(), Event()

    def append(self, *lines: Any, **day: Any) -> None:
        self.hangs.set()
        assert self.goes_on.wait(30)
        super().append(*lines, **day)


def test_a_flood_before_a_hanging_disk_blocks_nobody_and_what_is_too_much_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_letters, "WAITING_MAX_LETTERS", 100)
    files, count = StuckFiles(tmp_path), Count()
    letters = _letters(files, counted=count.hooks)
    _write(letters, {"n": -1})
    assert files.hangs.wait(10)
    began_s = time.monotonic()
    for n in range(5_000):
        _write(letters, {"n": n})
    took_s = time.monotonic() - began_s
    assert took_s < 5, "10 s is what the disk of this test hangs at least"
    assert (letters.written, letters.failed) == (0, 0)
    files.goes_on.set()
    assert letters.flush(10)
    assert (letters.written, letters.failed, count.not_written) == (101, 4_900, 4_900)
    assert [line["original_message"]["n"] for line in _lines(tmp_path)] == list(range(-1, 100))


def test_few_long_letters_are_too_many_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dead_letters, "WAITING_MAX_BYTES", 10_000)
    files = StuckFiles(tmp_path)
    letters = _letters(files)
    _write(letters, {"n": -1})
    assert files.hangs.wait(10)
    for _ in range(10):
        _write(letters, {"_raw": "x" * 6_000})
    files.goes_on.set()
    assert letters.flush(10)
    assert (letters.written, letters.failed) == (3, 8)


def test_a_disk_that_hangs_keeps_nobody_from_ending(tmp_path: Path) -> None:
    files = StuckFiles(tmp_path)
    letters = _letters(files)
    _write(letters, {})
    began_s = time.monotonic()
    letters.close(0.1)
    assert time.monotonic() - began_s < 5
    files.goes_on.set()


def test_what_waits_at_the_end_is_written_and_synced(tmp_path: Path) -> None:
    files = LetterFiles(tmp_path, fsync=Fsync.INTERVAL)
    letters = _letters(files)
    for n in range(2_000):
        _write(letters, {"n": n})
    letters.close()
    assert [line["original_message"]["n"] for line in _lines(tmp_path)] == list(range(2_000))
    assert not files.unsynced
    _write(letters, {})
    assert letters.written == 2_000


def test_with_an_interval_the_last_letter_is_synced_without_another_one(tmp_path: Path) -> None:
    files = LetterFiles(tmp_path, fsync=Fsync.INTERVAL)
    letters = _letters(files)
    for _ in range(2):
        _write(letters, {})
        assert letters.flush()
    deadline_s = time.monotonic() + 10
    while files.unsynced:
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
