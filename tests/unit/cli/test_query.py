"""``k2 query``: how it prints an answer."""

import json
from pathlib import Path

import pytest

from k2.cli import lake
from k2.cli.lake import query
from k2.cli.output import Output
from k2.errors import RejectError
from k2.lake.query import Answer, LakeReader
from k2.lake.tables import ensure_table, open_catalog

JSON = Output(json=True)


class Lake:
    """A lake that answers every question alike."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    def run(self, _sql: str) -> Answer:
        """Answer."""
        return self._answer


def answering(monkeypatch: pytest.MonkeyPatch, answer: Answer) -> None:
    monkeypatch.setattr(lake, "open_lake", lambda _settings: Lake(answer))


def test_a_program_gets_every_column_by_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answering(monkeypatch, Answer(["a", "b"], [(1, None), (2, "x")]))
    assert query("SELECT", output=JSON) == 0
    assert json.loads(capsys.readouterr().out) == [{"a": 1, "b": None}, {"a": 2, "b": "x"}]


def test_columns_of_one_name_are_shown_to_people_and_refused_to_programs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answering(monkeypatch, Answer(["b", "a", "A", "a", "b"], [(5, 1, 2, 3, 4)]))
    assert query("SELECT") == 0
    assert "│ 5 │ 1 │ 2 │ 3 │ 4 │" in capsys.readouterr().out
    with pytest.raises(RejectError, match=r"several columns are called a, b: .* AS "):
        query("SELECT", output=JSON)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "value",
    [
        "'infinity'::timestamp",
        "'-infinity'::date",
        "timestamp '0044-03-15 (BC)'",
        "timestamp_ns '2026-01-01 00:00:00.123456789'",
    ],
)
def test_a_time_that_python_has_no_date_for_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, value: str
) -> None:
    catalog = open_catalog(lake_dir=tmp_path)
    for name in ("trades", "gaps"):
        ensure_table(catalog, name)
    monkeypatch.setattr(lake, "open_lake", lambda _settings: LakeReader(catalog))
    with pytest.raises(RejectError, match="VARCHAR"):
        query(f"SELECT {value}")
    assert query(f"SELECT ({value})::VARCHAR") == 0
