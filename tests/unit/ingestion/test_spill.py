import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from k2.ingestion.spill import Spill
from k2.market import Trade

TradeOf = Callable[..., Trade]


def test_trades_come_back_in_order_and_whole(tmp_path: Path, trade_of: TradeOf) -> None:
    spill = Spill(tmp_path / "spill")
    trades = [trade_of(source_id) for source_id in range(5, 25)]
    assert all(spill.put(trade) for trade in trades)
    assert spill.take("BTCUSDT", 7) == trades[:7]
    assert spill.count("BTCUSDT") == 13
    assert spill.take("BTCUSDT", 100) == trades[7:]
    assert spill.take("BTCUSDT", 1) == []
    assert spill.bytes == 0


def test_the_second_legs_copies_are_not_kept_twice(tmp_path: Path, trade_of: TradeOf) -> None:
    spill = Spill(tmp_path)
    for source_id in (5, 5, 6, 5, 6, 7):
        assert spill.put(trade_of(source_id))
    assert [trade.source_id for trade in spill.take("BTCUSDT", 10)] == [5, 6, 7]


def test_a_full_file_keeps_no_more(tmp_path: Path, trade_of: TradeOf) -> None:
    one = Spill(tmp_path)
    one.put(trade_of(5))
    spill = Spill(tmp_path, max_bytes=2 * one.bytes)
    assert [spill.put(trade_of(i)) for i in (5, 6, 7)] == [True, True, False]
    assert [trade.source_id for trade in spill.take("BTCUSDT", 10)] == [5, 6]
    assert spill.put(trade_of(8)), "what was taken makes room"


def test_symbols_do_not_mix(tmp_path: Path, trade_of: TradeOf) -> None:
    spill = Spill(tmp_path)
    for source_id in (5, 6):
        for symbol in ("BTCUSDT", "这是测试币456"):
            spill.put(trade_of(source_id, symbol))
    spill.forget("BTCUSDT")
    assert spill.count("BTCUSDT") == 0
    assert [trade.symbol for trade in spill.take("这是测试币456", 9)] == ["这是测试币456"] * 2


def test_a_disk_that_cannot_be_written_keeps_nothing(tmp_path: Path, trade_of: TradeOf) -> None:
    def broken(_directory: Path) -> IO[bytes]:
        raise OSError("no space left")

    spill = Spill(tmp_path, open_file=broken)
    assert not spill.put(trade_of(5))
    assert spill.take("BTCUSDT", 1) == []


def test_nothing_is_left_behind(tmp_path: Path, trade_of: TradeOf) -> None:
    spill = Spill(tmp_path / "spill")
    spill.put(trade_of(5))
    assert list((tmp_path / "spill").iterdir()) == [], "the file has no name: it ends with us"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.integers(1, 6), max_size=40))
def test_whatever_the_pace_it_is_a_queue(steps: list[int], trade_of: TradeOf) -> None:

    with tempfile.TemporaryDirectory() as folder:
        spill, next_id, taken = Spill(Path(folder)), 0, list[int]()
        for step in steps:
            for _ in range(step):
                spill.put(trade_of(next_id))
                next_id += 1
            taken += [trade.source_id for trade in spill.take("BTCUSDT", step // 2)]
        taken += [trade.source_id for trade in spill.take("BTCUSDT", 10**6)]
        assert taken == list(range(next_id))
