import json
import multiprocessing
import os
from datetime import date
from pathlib import Path

import pytest

from k2.kafka.letter_files import Fsync, LetterFiles, letter_files

DAY = date(2026, 1, 14)
LINE = b'{"n":1}'


def names(directory: Path) -> list[str]:
    return [one.path.name for one in letter_files(directory)]


def test_a_full_file_is_followed_by_the_next_number_and_the_runbooks_glob_finds_all(
    tmp_path: Path,
) -> None:
    files = LetterFiles(tmp_path, file_bytes=20)
    for _ in range(23):
        files.append([LINE], day=DAY)
    first = ["binance-20260114.jsonl", *(f"binance-20260114.{n}.jsonl" for n in range(1, 12))]
    assert names(tmp_path) == first
    assert {path.name for path in tmp_path.glob("binance-*.jsonl")} == set(first)
    assert all(path.stat().st_size <= 20 for path in tmp_path.iterdir())
    files.append([LINE], day=date(2026, 1, 15))
    assert names(tmp_path)[-1] == "binance-20260115.jsonl"


def test_a_letter_longer_than_a_file_may_be_is_kept_all_the_same(tmp_path: Path) -> None:
    files = LetterFiles(tmp_path, file_bytes=20)
    files.append([b"x" * 100], day=DAY)
    files.append([LINE], day=DAY)
    assert names(tmp_path) == ["binance-20260114.jsonl", "binance-20260114.1.jsonl"]


def test_the_oldest_files_make_room_and_nothing_else_does(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x" * 1000)
    files = LetterFiles(tmp_path, file_bytes=16, directory_bytes=48)
    for day in (13, 14):
        for _ in range(6):
            files.append([LINE], day=date(2026, 1, day))
    assert names(tmp_path) == [
        "binance-20260114.jsonl",
        "binance-20260114.1.jsonl",
        "binance-20260114.2.jsonl",
    ]
    assert files.removed[0] == "binance-20260113.jsonl"
    files.append([LINE], day=DAY)
    # Not 1 again: numbers only grow, so that the newest is known.
    assert names(tmp_path)[-1] == "binance-20260114.3.jsonl"
    assert (tmp_path / "notes.txt").exists()


def test_the_newest_file_stays_however_little_is_allowed(tmp_path: Path) -> None:
    files = LetterFiles(tmp_path, directory_bytes=10)
    for _ in range(3):
        files.append([LINE], day=DAY)
    (path,) = tmp_path.iterdir()
    assert path.read_bytes().splitlines() == [LINE] * 3


def test_what_a_process_left_unfinished_spoils_no_other_letter(tmp_path: Path) -> None:
    files = LetterFiles(tmp_path)
    files.append([LINE], day=DAY)
    with (tmp_path / "binance-20260114.jsonl").open("ab") as file:
        file.write(b'{"half')
    files.append([LINE], day=DAY)
    lines = (tmp_path / "binance-20260114.jsonl").read_bytes().splitlines()
    assert lines == [LINE, b'{"half', LINE]


def test_of_lines_that_do_not_fit_on_the_disk_nothing_stays(tmp_path: Path) -> None:
    pid = os.fork()  # the limit is the process's own
    if pid == 0:
        import resource  # noqa: PLC0415
        import signal  # noqa: PLC0415

        files = LetterFiles(tmp_path)
        files.append([LINE], day=DAY)
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
        try:
            files.append([b"x" * 1000], day=DAY)
        except OSError:
            os._exit(7)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 7
    assert (tmp_path / "binance-20260114.jsonl").read_bytes() == LINE + b"\n"


@pytest.mark.parametrize(("fsync", "synced"), [(Fsync.EACH, 3), (Fsync.INTERVAL, 1)])
def test_letters_are_synced_as_the_operator_chose(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fsync: Fsync, synced: int
) -> None:
    calls: list[int] = []
    monkeypatch.setattr(os, "fsync", calls.append)
    files = LetterFiles(tmp_path, fsync=fsync)
    for _ in range(3):
        files.append([LINE], day=DAY)
    files.sync()
    files.sync()
    assert len(calls) == synced


def test_never_is_never(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _fd: pytest.fail("synced"))
    files = LetterFiles(tmp_path, fsync=Fsync.NEVER)
    files.append([LINE], day=DAY)
    assert not files.unsynced
    files.sync()


def test_a_file_that_goes_on_elsewhere_is_synced_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    monkeypatch.setattr(os, "fsync", calls.append)
    files = LetterFiles(tmp_path)
    files.append([LINE], day=DAY)
    files.append([LINE], day=date(2026, 1, 15))
    assert len(calls) == 1
    assert files.unsynced


def _append_many(directory: Path, who: int) -> None:
    files = LetterFiles(directory, file_bytes=4_000)
    for n in range(300):
        files.append([b'{"who":%d,"n":%d}' % (who, n)], day=DAY)


def test_processes_that_write_at_once_lose_nothing_and_keep_the_bound(tmp_path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=_append_many, args=(tmp_path, who)) for who in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    paths = [one.path for one in letter_files(tmp_path)]
    found = [json.loads(line) for path in paths for line in path.read_bytes().splitlines()]
    assert sorted((one["who"], one["n"]) for one in found) == [
        (who, n) for who in range(4) for n in range(300)
    ]
    assert all(path.stat().st_size <= 4_000 for path in paths)


def test_a_directory_that_is_not_there_has_no_files(tmp_path: Path) -> None:
    assert letter_files(tmp_path / "nowhere") == []
