import gzip
import json
import math
from collections import Counter
from decimal import Decimal
from itertools import groupby, pairwise
from pathlib import Path

import pytest

from k2.errors import StopError
from k2.market import StreamKind
from k2.simulator.recording import RecordingTape, play, read_lines, summarise
from k2.simulator.rows import TapeRow

AGG, FILL = StreamKind.AGG_TRADE, StreamKind.TRADE
T0 = 1723161255000


def _line(
    fill_id: int,
    *,
    at_ms: int = 0,
    price: str = "10.00",
    quantity: str = "1.5",
    maker: bool = True,
    time: int = 0,
    **more: int,
) -> str:
    data = {
        "e": "trade",
        "E": T0 + time + 1,
        "s": "BTCUSDT",
        "t": fill_id,
        "p": price,
        "q": quantity,
        "T": T0 + time,
        "m": maker,
        "M": True,
    }
    frame = {"stream": "btcusdt@trade", "data": {**data, **more}}
    return f"{(T0 - 1270 + at_ms) * 1_000_000} {json.dumps(frame)}\n"


NOISE = f'{T0 * 1_000_000} {{"stream":"btcusdt@bookTicker","data":{{"u":1}}}}\n'
SNAPSHOT = f'{T0 * 1_000_000} {{"lastUpdateId":1,"bids":[],"asks":[]}}\n'


def _aggregates(lines: list[str]) -> list[tuple[int, int, int, str]]:
    rows = [played.row for played in play(lines)]
    return [
        (row.row_id, row.first_trade_id, row.last_trade_id, row.quantity)
        for row in rows
        if row.kind is AGG
    ]


def test_fills_of_one_price_side_and_time_become_one_aggregate() -> None:
    lines = [
        _line(7),
        _line(8, quantity="0.25"),
        _line(9, price="10.01"),
        _line(10, price="10.01", maker=False),
        _line(11, price="10.01", maker=False, time=1),
    ]
    assert _aggregates(lines) == [
        (0, 7, 8, "1.75000000"),
        (1, 9, 9, "1.50000000"),
        (2, 10, 10, "1.50000000"),
        (3, 11, 11, "1.50000000"),
    ]


def test_old_order_ids_tell_two_taker_orders_apart_and_are_not_aggregate_ids() -> None:
    sellers = [_line(1, b=50, a=60), _line(2, b=51, a=60), _line(3, b=52, a=61)]
    assert _aggregates(sellers) == [(0, 1, 2, "3.00000000"), (1, 3, 3, "1.50000000")]
    buyers = [_line(1, maker=False, b=50, a=60), _line(2, maker=False, b=50, a=61)]
    assert _aggregates(buyers) == [(0, 1, 2, "3.00000000")]


def test_other_frames_are_counted_and_skipped() -> None:
    skipped: Counter[str] = Counter()
    rows = list(play([NOISE, _line(1), NOISE, SNAPSHOT], skipped))
    assert [played.row.kind for played in rows] == [FILL, AGG]
    assert skipped == {"bookTicker": 2, "without a stream": 1}


def test_milliseconds_become_microseconds_and_microseconds_stay() -> None:
    rows = [played.row for played in play([_line(1, time=5)])]
    assert rows[0].trade_ts_us == (T0 + 5) * 1000
    in_us = f'{T0 * 10**6} {{"e":"trade","E":1,"s":"X","t":1,"p":"1","q":"1","T":{T0}001,"m":true}}'
    assert next(play([in_us])).row.trade_ts_us == T0 * 1000 + 1


def test_a_hole_in_the_recording_ends_an_aggregate() -> None:
    assert [row[1:3] for row in _aggregates([_line(1), _line(2), _line(5)])] == [(1, 2), (5, 5)]


@pytest.mark.parametrize(
    "line",
    ["garbage\n", "12 {\n", _line(1), _line(2, price="NaN"), _line(2, quantity="-1")],
)
def test_a_damaged_recording_is_refused_with_its_line_number(line: str) -> None:
    with pytest.raises(StopError, match="line 2 of the recording"):
        list(play([_line(1), line]))


def test_a_recording_without_trades_or_cut_short_is_refused(tmp_path: Path) -> None:
    empty = tmp_path / "empty.ndjson"
    empty.write_text(NOISE)
    with pytest.raises(StopError, match="no trade frame"):
        summarise(empty)
    cut = tmp_path / "cut.ndjson.gz"
    cut.write_bytes(gzip.compress(_line(1).encode())[:-9])
    with pytest.raises(StopError, match="cannot read"):
        summarise(cut)
    with pytest.raises(StopError, match="cannot read"):
        summarise(tmp_path / "absent.ndjson")


def _tape(
    lines: list[str], *, speed: float, newest: dict[tuple[str, StreamKind], int]
) -> RecordingTape:
    return RecordingTape(play(lines), speed=speed, newest=newest)


def test_rows_are_played_at_the_recorded_pace_divided_by_the_speed() -> None:
    lines = [_line(n, at_ms=100 * n, time=n) for n in range(10)]
    tape = _tape(lines, speed=2, newest={})
    played = [
        [row.row_id for row in tape.advance(start_us=now, end_us=now + 50_000) if row.kind is FILL]
        for now in range(0, 500_000, 50_000)
    ]
    assert played == [[0, 1], [2], [3], [4], [5], [6], [7], [8], [9], []]
    assert tape.finished


def test_speed_max_plays_everything_in_bounded_steps() -> None:
    lines = [_line(n, at_ms=10_000 * n, time=n) for n in range(1500)]
    tape = _tape(lines, speed=math.inf, newest={})
    steps = []
    while not tape.finished:
        steps.append(len(tape.advance(start_us=0, end_us=1)))
    assert sum(steps) == 3000
    assert max(steps) == 1000


def test_time_that_passes_between_calls_plays_nothing() -> None:
    lines = [_line(n, at_ms=100 * n, time=n) for n in range(100)]
    tape = _tape(lines, speed=1, newest={})
    tape.advance(start_us=0, end_us=100_000)
    later = tape.advance(start_us=50_000_000, end_us=50_100_000)
    assert [row.row_id for row in later if row.kind is FILL] == [2]


def test_a_restart_goes_on_after_what_was_played_with_the_same_aggregate_ids() -> None:
    lines = [_line(n, time=n // 3) for n in range(30)]
    everything = [played.row for played in play(lines)]
    for cut in range(len(everything)):
        before: list[TapeRow] = everything[:cut]
        newest = {(row.symbol, row.kind): row.row_id for row in before}
        tape = _tape(lines, speed=math.inf, newest=newest)
        assert before + tape.advance(start_us=0, end_us=1) == everything


def test_the_real_recording_is_whole(real_recording: Path) -> None:
    summary = summarise(real_recording)
    assert summary.symbols == ("BTCUSDT",)
    assert summary.fills == 9757
    assert summary.aggregates == 5813
    assert summary.skipped_frames == {
        "bookTicker": 28040,
        "depth@100ms": 3451,
        "without a stream": 1,
    }
    assert 345 < summary.duration_s < 347


def test_aggregates_of_the_real_recording_add_up_to_its_fills(
    real_recording: Path,
) -> None:
    rows = [played.row for played in play(read_lines(real_recording))]
    fills = [row for row in rows if row.kind is FILL]
    aggregates = [row for row in rows if row.kind is AGG]
    assert all(after.row_id == before.row_id + 1 for before, after in pairwise(fills))
    assert all(a.first_trade_id == b.last_trade_id + 1 for b, a in pairwise(aggregates))
    assert [row.row_id for row in aggregates] == list(range(len(aggregates)))
    # Independently of the code under test: runs of equal price, side and time.
    runs = [
        (key, sum(Decimal(fill.quantity) for fill in run))
        for key, run in groupby(
            fills, key=lambda fill: (fill.price, fill.buyer_is_maker, fill.trade_ts_us)
        )
    ]
    assert [
        ((row.price, row.buyer_is_maker, row.trade_ts_us), Decimal(row.quantity))
        for row in aggregates
    ] == runs
