from pathlib import Path

import pytest

from k2.ingestion.process_figures import UNKNOWN, revision, show_memory
from k2.observability import metrics
from k2.observability.leak import HOUR, MB
from k2.observability.memory import MemoryUse, MemoryWatch

MINUTE_S = 60.0
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


def _scored(growth_mb_per_h: float) -> float:
    """Return the score on the page after 40 minutes of a process that grows so fast."""
    now_s = 0.0

    def use() -> MemoryUse:
        return MemoryUse(round((100 + growth_mb_per_h * now_s / 3600) * MB), 400 * MB)

    watch = MemoryWatch(read=use, monotonic_s=lambda: now_s)
    while now_s < 40 * MINUTE_S:
        watch.take_sample()
        now_s += HOUR.sample_every_s
    stop = metrics.process.before_scrape(lambda: show_memory(watch))
    try:
        shown = {s.name: s.value for family in metrics.process.collect() for s in family.samples}
    finally:
        stop()
    assert shown["process_memory_rss_bytes"] == use().rss_bytes
    assert shown["process_memory_vms_bytes"] == 400 * MB
    return shown["memory_leak_detection_score"]


def test_a_process_that_grows_shows_it_on_its_page_and_one_that_does_not_shows_0() -> None:
    assert _scored(60) > 0.8
    assert _scored(0) == 0
