from pathlib import Path

import pytest

from k2.ingestion.process_figures import UNKNOWN, revision

COMMIT = "9bf29f8" + "0" * 33


@pytest.fixture
def git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("K2_REVISION", raising=False)
    (tmp_path / ".git" / "refs" / "heads").mkdir(parents=True)
    (tmp_path / ".git" / "HEAD").write_text("ref: refs/heads/main\n")
    return tmp_path


def test_a_checkout_knows_its_commit(git: Path) -> None:
    (git / ".git" / "refs" / "heads" / "main").write_text(f"{COMMIT}\n")
    assert revision(git / "src" / "file.py") == COMMIT


def test_a_packed_branch_is_found_too(git: Path) -> None:
    (git / ".git" / "packed-refs").write_text(f"# pack-refs\n{COMMIT} refs/heads/main\n")
    assert revision(git / "src" / "file.py") == COMMIT


def test_a_commit_checked_out_by_itself_is_its_own_name(git: Path) -> None:
    (git / ".git" / "HEAD").write_text(f"{COMMIT}\n")
    assert revision(git / "src" / "file.py") == COMMIT


def test_an_image_says_what_it_was_built_from(git: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("K2_REVISION", "abc")
    assert revision(git / "src" / "file.py") == "abc"


def test_without_either_it_is_unknown(git: Path) -> None:
    assert revision(git / "src" / "file.py") == UNKNOWN
    assert revision(Path("/nowhere/file.py")) == UNKNOWN
