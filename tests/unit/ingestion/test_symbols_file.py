from pathlib import Path

import pytest

from k2.errors import StopError
from k2.ingestion.symbols_file import read_wanted, wanted_symbols, write_file
from k2.market.wanted import Wanted, parse_lines
from k2.settings import load_settings


def test_without_a_file_the_list_counts() -> None:
    settings = load_settings({"symbols": "btcusdt,all:usdc"})
    assert wanted_symbols(settings) == Wanted(frozenset({"BTCUSDT"}), frozenset({"USDC"}))


def test_the_file_wins_over_the_list(tmp_path: Path) -> None:
    file = tmp_path / "symbols"
    file.write_text("ADAUSDT\n-XRPUSDT\n")
    settings = load_settings({"symbols": "BTCUSDT", "symbols_file": file})
    assert wanted_symbols(settings) == parse_lines("ADAUSDT\n-XRPUSDT\n")


def test_a_file_that_is_not_there_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(StopError, match=r"K2_SYMBOLS_FILE=.*cannot be read.*k2 symbols add"):
        read_wanted(tmp_path / "none")
    with pytest.raises(StopError, match="cannot be read"):
        read_wanted(tmp_path)


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "symbols").write_bytes(b"BTCUSDT\n\xff\xfe\n")
    with pytest.raises(StopError, match="not a text in UTF-8"):
        read_wanted(tmp_path / "symbols")


def test_a_written_file_replaces_the_old_one_in_one_step(tmp_path: Path) -> None:
    file = tmp_path / "new folder" / "symbols"
    write_file(file, "BTCUSDT\n")
    with file.open() as reader:
        write_file(file, "币安人生USDT\n")
        assert reader.read() == "BTCUSDT\n"
    assert read_wanted(file).names == {"币安人生USDT"}
    assert [path.name for path in file.parent.iterdir()] == ["symbols"]
