"""Room and limits of the machine the tests run on, and of less."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from k2.doctor.finding import Level, Unseen
from k2.doctor.machine_judgement import (
    FREE_FAIL_BYTES,
    FREE_WARN_BYTES,
    Folder,
    judge_folder,
    judge_open_files,
)
from k2.doctor.machine_look import look_at_folder


def test_a_folder_yet_to_be_made_is_judged_by_where_it_would_be(tmp_path: Path) -> None:
    seen = look_at_folder(tmp_path / "not" / "yet")
    assert isinstance(seen, Folder)
    assert seen.free_bytes == pytest.approx(
        getattr(look_at_folder(tmp_path), "free_bytes", 0), rel=0.05
    )
    assert seen.writable
    assert not (tmp_path / "not").exists()


def test_a_file_in_the_way_fails(tmp_path: Path) -> None:
    (tmp_path / "dlq").write_text("in the way")
    seen = look_at_folder(tmp_path / "dlq" / "today")
    found = judge_folder(seen, use="dead letters", setting="K2_DLQ_DIR")
    assert found.level is Level.FAIL
    assert found.seen.endswith("dlq is a file, not a folder")
    assert found.fix.startswith("K2_DLQ_DIR=")


def test_a_file_system_without_room_fails() -> None:
    seen = look_at_folder(Path("/proc"))  # a file system of no size at all
    assert isinstance(seen, Folder)
    assert seen.free_bytes == 0
    assert judge_folder(seen, use="state", setting="K2_STATE_DIR").level is Level.FAIL


@pytest.mark.parametrize(
    ("free_bytes", "level"),
    [
        (FREE_WARN_BYTES, Level.OK),
        (FREE_WARN_BYTES - 1, Level.WARN),
        (FREE_FAIL_BYTES, Level.WARN),
        (FREE_FAIL_BYTES - 1, Level.FAIL),
    ],
)
def test_room_is_judged_in_two_steps(free_bytes: int, level: Level) -> None:
    seen = Folder(path="/x", free_bytes=free_bytes, total_bytes=1 << 40, writable=True)
    found = judge_folder(seen, use="logs", setting="K2_LOG_FILE")
    assert (found.check, found.level) == ("disk for logs", level)


def test_a_folder_that_cannot_be_written_fails_however_much_is_free() -> None:
    seen = Folder(path="/x", free_bytes=1 << 40, total_bytes=1 << 40, writable=False)
    found = judge_folder(seen, use="logs", setting="K2_LOG_FILE")
    assert found.level is Level.FAIL
    assert "cannot be written" in found.seen
    assert judge_folder(Unseen("x"), use="logs", setting="K2_LOG_FILE").level is Level.FAIL


@pytest.mark.parametrize(
    ("limit", "level"), [(1024, Level.OK), (1023, Level.WARN), (256, Level.WARN), (255, Level.FAIL)]
)
def test_a_low_limit_of_open_files_is_told(limit: int, level: Level) -> None:
    assert judge_open_files(limit).level is level


def test_the_limit_is_that_of_the_shell_it_was_started_from(tmp_path: Path) -> None:
    script = f'ulimit -n 200; exec "{sys.executable}" -m k2 doctor machine --json'
    done = subprocess.run(
        ["sh", "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=200, check=False
    )
    findings = {one["check"]: one for one in json.loads(done.stdout)["findings"]}
    assert (findings["open files"]["level"], findings["open files"]["seen"]) == (
        "fail",
        "limit 200",
    )
    assert "ulimit -n" in findings["open files"]["fix"]
    assert done.returncode == 1
