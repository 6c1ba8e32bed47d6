import os
from pathlib import Path

import msgspec
import pytest

from k2.errors import StopError
from k2.market import IdRange, StreamKind
from k2.simulator.ledger import Ledger
from k2.simulator.rows import TapeRow

AGG, FILL = StreamKind.AGG_TRADE, StreamKind.TRADE


def _row(row_id: int, *, symbol: str = "BTCUSDT", kind: StreamKind = AGG) -> TapeRow:
    return TapeRow(
        symbol=symbol,
        kind=kind,
        row_id=row_id,
        price="0.00000041",
        quantity="99999999999.12345678",
        first_trade_id=2**40 + row_id,
        last_trade_id=2**40 + row_id,
        trade_ts_us=1_000_000 + 10 * (row_id // 3),
        event_ts_us=1_000_005 + 10 * row_id,
        buyer_is_maker=row_id % 2 == 0,
        best_match=row_id % 3 == 0,
    )


@pytest.mark.parametrize("where", ["directory", "nowhere"])
def test_rows_come_back_as_they_went_in(tmp_path: Path, where: str) -> None:
    rows = [_row(n) for n in range(100, 120)] + [_row(n, symbol="这是测试币456") for n in range(5)]
    with Ledger.write(tmp_path / "new" if where == "directory" else None) as ledger:
        ledger.append(rows)
        assert ledger.rows("BTCUSDT", AGG) == rows[:20]
        assert ledger.rows("BTCUSDT", AGG, 105, 3) == rows[5:8]
        assert ledger.rows("BTCUSDT", AGG, 118, 10, last_id=118) == rows[18:19]
        assert ledger.newest_rows("BTCUSDT", AGG, 2, last_id=2**63 - 1) == rows[18:20]
        assert ledger.newest_rows("BTCUSDT", AGG, 2, last_id=110) == rows[9:11]
        assert ledger.range("BTCUSDT", AGG) == IdRange(100, 119)
        assert ledger.count("BTCUSDT", AGG) == 20
        assert ledger.rows("这是测试币456", AGG) == rows[20:]
        assert ledger.series() == [("BTCUSDT", AGG), ("这是测试币456", AGG)]


def test_what_never_traded_has_no_rows() -> None:
    with Ledger.write(None) as ledger:
        ledger.append([_row(1)])
        assert ledger.range("BTCUSDT", FILL) is None
        assert ledger.count("ETHUSDT", AGG) == 0
        assert ledger.rows("ETHUSDT", AGG) == []
        assert ledger.first_id_at("ETHUSDT", AGG, 0) is None


def test_the_first_id_at_a_time_is_found_among_equal_times() -> None:
    with Ledger.write(None) as ledger:
        rows = [_row(n) for n in range(3, 300) if n not in range(100, 120)]
        ledger.append(rows)
        times = {row.trade_ts_us for row in rows}
        for time in range(1_000_000, 1_001_010):
            expected = next((row.row_id for row in rows if row.trade_ts_us >= time), None)
            assert ledger.first_id_at("BTCUSDT", AGG, time) == expected
        assert len(times) < len(rows)


def test_a_second_reader_sees_what_is_committed(tmp_path: Path) -> None:
    with Ledger.write(tmp_path) as writer, Ledger.read(tmp_path) as reader:
        assert reader.count("BTCUSDT", AGG) == 0
        writer.append([_row(1), _row(2)])
        assert reader.range("BTCUSDT", AGG) == IdRange(1, 2)
        writer.append([_row(3)])
        assert reader.range("BTCUSDT", AGG) == IdRange(1, 3)


def test_committed_rows_survive_the_death_of_the_process(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        Ledger.write(tmp_path).append([_row(n) for n in range(10)])
        os._exit(9)  # neither closed nor flushed
    os.waitpid(child, 0)
    with Ledger.read(tmp_path) as reader:
        assert reader.range("BTCUSDT", AGG) == IdRange(0, 9)
    with Ledger.write(tmp_path) as writer:
        writer.append([_row(10)])


def test_one_id_cannot_be_published_twice_and_a_refused_batch_leaves_nothing() -> None:
    with Ledger.write(None) as ledger:
        ledger.append([_row(1)])
        with pytest.raises(StopError, match="published twice"):
            ledger.append([_row(2), _row(1)])
        assert ledger.count("BTCUSDT", AGG) == 1


def test_two_exchanges_cannot_share_a_directory(tmp_path: Path) -> None:
    with Ledger.write(tmp_path), pytest.raises(StopError, match="another exchange is running"):
        Ledger.write(tmp_path)
    Ledger.write(tmp_path).close()


def test_a_directory_remembers_which_tape_it_holds(tmp_path: Path) -> None:
    with Ledger.write(tmp_path) as ledger:
        ledger.pin("tape", "generated")
        ledger.pin("tape", "generated")
        with pytest.raises(StopError, match="holds another tape"):
            ledger.pin("tape", "recording abc")


def test_reading_where_there_is_no_ledger_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(StopError, match="no exchange has kept a ledger"):
        Ledger.read(tmp_path)


def test_rows_are_values() -> None:
    with pytest.raises(AttributeError):
        _row(1).price = "2"  # type: ignore[misc]  # that it is refused is the point
    assert msgspec.structs.replace(_row(1), row_id=2) != _row(1)
