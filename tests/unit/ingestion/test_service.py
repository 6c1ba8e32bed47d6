from pathlib import Path

import pytest

from k2.ingestion.service import log_to_file
from k2.settings import Settings


def test_a_log_that_cannot_be_written_is_one_line_with_its_variable(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert not log_to_file("archive", Settings(), default=tmp_path / "file" / "k2.log")
    said = capsys.readouterr().err
    assert said.startswith("k2 archive: no log can be written, set K2_LOG_FILE")
    assert said.count("\n") == 1
