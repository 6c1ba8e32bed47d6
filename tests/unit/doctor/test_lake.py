"""Real lakes on disk: none, new, filled, old, damaged."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from k2.doctor.finding import Finding, Level
from k2.doctor.lake_judgement import TableSeen, judge_table
from k2.doctor.lake_look import look_at_lake
from k2.lake.tables import ensure_table, open_catalog
from k2.settings import Settings

Look = Callable[[], list[Finding]]


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    return tmp_path / "lake"


@pytest.fixture
def look(lake: Path) -> Look:
    settings = Settings(lake_dir=lake)
    return lambda: judge_table(look_at_lake(settings), place=str(lake))


def _filled(lake: Path, *, rows: int = 0) -> None:
    ensure_table(open_catalog(lake_dir=lake), "gaps")
    table = ensure_table(open_catalog(lake_dir=lake), "trades")
    schema = table.schema().as_arrow()
    ones = pa.array([1] * rows, pa.int64())
    table.append(pa.Table.from_arrays([ones.cast(field.type) for field in schema], schema=schema))


def test_no_lake_yet_is_a_warning_and_none_is_made(look: Look, lake: Path) -> None:
    (found,) = look()
    assert found.level is Level.WARN
    assert f"no lake at {lake}" in found.seen
    assert not lake.exists()


def test_a_lake_without_a_table_is_a_warning(look: Look, lake: Path) -> None:
    open_catalog(lake_dir=lake)
    (found,) = look()
    assert found.level is Level.WARN
    assert "no table crypto.trades" in found.seen


def test_a_table_without_a_commit_asks_for_the_archive(look: Look, lake: Path) -> None:
    ensure_table(open_catalog(lake_dir=lake), "trades")
    catalog, newest = look()
    assert catalog.level is Level.OK
    assert (newest.level, newest.seen) == (Level.WARN, "none yet")
    assert "`k2 archive`" in newest.fix


def test_a_fresh_commit_is_fine(look: Look, lake: Path) -> None:
    _filled(lake)
    assert [one.level for one in look()] == [Level.OK, Level.OK]


def test_an_old_commit_is_a_warning(
    look: Look, lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _filled(lake)
    monkeypatch.setattr("k2.doctor.lake_judgement.SNAPSHOT_AGE_WARN_S", -1.0)
    assert look()[1].level is Level.WARN


@pytest.mark.parametrize(("age_s", "level"), [(300.0, Level.OK), (301.0, Level.WARN)])
def test_five_minutes_without_a_commit_are_too_many(age_s: float, level: Level) -> None:
    found = judge_table(TableSeen("crypto.trades", 3, age_s), place="lake")
    assert found[1].level is level


def test_a_catalog_that_is_no_database_fails(look: Look, lake: Path) -> None:
    lake.mkdir()
    (lake / "catalog.db").write_bytes(b"not a database, but long enough to be read as one" * 100)
    (found,) = look()
    assert found.level is Level.FAIL
    assert "K2_LAKE_DIR" in found.fix


def test_a_table_whose_metadata_is_gone_fails(look: Look, lake: Path) -> None:
    _filled(lake)
    shutil.rmtree(lake / "warehouse")
    (found,) = look()
    assert found.level is Level.FAIL


def test_a_snapshot_whose_manifest_list_is_gone_fails(look: Look, lake: Path) -> None:
    _filled(lake)
    for path in (lake / "warehouse").rglob("snap-*.avro"):
        path.unlink()
    (found,) = look()
    assert found.level is Level.FAIL
    assert "snap-" in found.seen


@pytest.mark.parametrize("kept_bytes", [None, 0, 200])
def test_a_manifest_that_is_not_all_there_fails(
    look: Look, lake: Path, kept_bytes: int | None
) -> None:
    _filled(lake, rows=1)
    (path,) = (lake / "warehouse").rglob("*-m0.avro")
    held = path.read_bytes()
    path.unlink()
    if kept_bytes is not None:
        path.write_bytes(held[:kept_bytes])
    (found,) = look()
    assert found.level is Level.FAIL
    assert path.name in found.seen


def test_a_damaged_manifest_list_fails(look: Look, lake: Path) -> None:
    _filled(lake)
    for path in (lake / "warehouse").rglob("snap-*.avro"):
        path.write_bytes(b"")
    (found,) = look()
    assert found.level is Level.FAIL
    assert "damaged" in found.seen


def test_a_catalog_nobody_configured_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    found = judge_table(look_at_lake(Settings(lake_catalog="nowhere")), place="nowhere")
    assert [one.level for one in found] == [Level.FAIL]
