import tempfile
from collections.abc import Callable
from io import BytesIO, FileIO
from pathlib import Path
from typing import IO, Any

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


class FullDisk(BytesIO):
    """Takes so many bytes and no more; says how many of them it took."""

    room = 0

    def write(self, body: Any) -> int:
        return super().write(body[: max(0, self.room - self.tell())])


def test_what_a_disk_took_only_in_part_is_not_kept(trade_of: TradeOf) -> None:
    file = FullDisk()
    spill = Spill(Path("nowhere"), open_file=lambda _: file)
    file.room = 1 << 20
    assert spill.put(trade_of(5))
    file.room = spill.bytes + 10
    assert not spill.put(trade_of(6))
    file.room = 1 << 20
    assert spill.put(trade_of(7))
    assert [trade.source_id for trade in spill.take("BTCUSDT", 9)] == [5, 7]


def test_what_the_disk_does_not_give_back_is_forgotten(trade_of: TradeOf) -> None:
    file = BytesIO()
    spill = Spill(Path("nowhere"), open_file=lambda _: file)
    for source_id in (5, 6, 7):
        spill.put(trade_of(source_id))
    file.truncate(spill.bytes // 3 + 10)
    assert [trade.source_id for trade in spill.take("BTCUSDT", 9)] == [5]
    assert (spill.count("BTCUSDT"), spill.bytes) == (0, 0)


def test_nothing_waits_to_be_written_that_a_later_call_could_fail_on(
    tmp_path: Path, trade_of: TradeOf
) -> None:
    spill = Spill(tmp_path)
    spill.put(trade_of(5))
    assert isinstance(spill._queues["BTCUSDT"].file, FileIO)


def test_a_tape_that_passed_all_that_is_kept_needs_none_of_it(trade_of: TradeOf) -> None:
    spill = Spill(Path("nowhere"), open_file=lambda _: BytesIO())
    for source_id in (5, 6):
        spill.put(trade_of(source_id))
    spill.forget_written("BTCUSDT", 6)
    assert spill.count("BTCUSDT") == 2
    spill.forget_written("BTCUSDT", 7)
    assert (spill.count("BTCUSDT"), spill.bytes) == (0, 0)
    spill.forget_written("BTCUSDT", 7)


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
