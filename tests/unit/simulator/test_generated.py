import random

from k2.market import StreamKind
from k2.simulator.generated import ORDERS_PER_STEP_MAX, GeneratedTape
from k2.simulator.listing import select
from k2.simulator.matching import LEVELS_SWEPT_MAX, Market
from k2.simulator.rows import TapeRow

START_US = 1_770_000_000_000_000
TICK_US = 20_000


def _tape(*, seed: int, rate: float) -> GeneratedTape:
    markets = [
        (
            Market(listing, rng=random.Random(f"{seed}:{name}"), next_agg_id=0, next_fill_id=0),
            listing.activity,
        )
        for name, listing in select(()).items()
    ]
    return GeneratedTape(markets, rate=rate, rng=random.Random(seed))


def _play(tape: GeneratedTape, *, ticks: int) -> list[TapeRow]:
    return [
        row
        for tick in range(ticks)
        for row in tape.advance(
            start_us=START_US + tick * TICK_US, end_us=START_US + (tick + 1) * TICK_US
        )
    ]


def test_the_same_seed_and_times_give_the_same_tape() -> None:
    assert _play(_tape(seed=3, rate=500), ticks=50) == _play(_tape(seed=3, rate=500), ticks=50)
    assert _play(_tape(seed=3, rate=500), ticks=50) != _play(_tape(seed=4, rate=500), ticks=50)


def test_the_rate_is_aggregates_per_second_on_average() -> None:
    rows = _play(_tape(seed=1, rate=1000), ticks=500)
    aggregates = sum(row.kind is StreamKind.AGG_TRADE for row in rows)
    assert 9_000 < aggregates < 11_000


def test_the_busiest_symbol_is_btcusdt_and_a_halted_one_does_not_trade() -> None:
    rows = _play(_tape(seed=1, rate=1000), ticks=200)
    traded = [row.symbol for row in rows]
    assert max(set(traded), key=traded.count) == "BTCUSDT"
    assert "FTTUSDT" not in traded


def test_trade_times_lie_in_the_interval_and_rise_per_symbol() -> None:
    last: dict[str, int] = {}
    for tick in range(100):
        start_us, end_us = START_US + tick * TICK_US, START_US + (tick + 1) * TICK_US
        tape = _tape(seed=tick, rate=2000)
        for row in tape.advance(start_us=start_us, end_us=end_us):
            assert start_us <= row.trade_ts_us <= end_us
            assert row.trade_ts_us >= last.get(row.symbol, 0)
            last[row.symbol] = row.trade_ts_us


def test_a_long_stall_is_not_made_up_for() -> None:
    rows = _tape(seed=1, rate=100).advance(start_us=START_US, end_us=START_US + 3600 * 1_000_000)
    assert sum(row.kind is StreamKind.AGG_TRADE for row in rows) <= 101 + LEVELS_SWEPT_MAX


def test_a_rate_beyond_the_machine_is_taken_in_bounded_steps() -> None:
    tape = _tape(seed=1, rate=10**7)
    steps = [_play(tape, ticks=1) for _ in range(3)]
    assert all(0 < len({row.trade_ts_us for row in rows}) <= ORDERS_PER_STEP_MAX for rows in steps)


def test_a_symbol_that_stopped_trades_no_more_and_the_others_share_its_part() -> None:
    tape = _tape(seed=1, rate=2000)
    tape.stop("BTCUSDT")
    tape.stop("NOPE")
    rows = _play(tape, ticks=200)
    assert {row.symbol for row in rows} >= {"ETHUSDT", "SOLUSDT"}
    assert "BTCUSDT" not in {row.symbol for row in rows}
    aggregates = sum(row.kind is StreamKind.AGG_TRADE for row in rows)
    assert 0.8 < aggregates / (2000 * 200 * TICK_US / 1e6) < 1.2


def test_a_symbol_that_starts_trades_from_the_next_step_on() -> None:
    listing = select(("BTCUSDT",))["BTCUSDT"]
    tape = GeneratedTape([], rate=500, rng=random.Random(1))
    assert _play(tape, ticks=20) == []
    market = Market(listing, rng=random.Random(1), next_agg_id=7, next_fill_id=9)
    tape.start(market, 1)
    rows = [row for row in _play(tape, ticks=20) if row.kind is StreamKind.AGG_TRADE]
    assert rows[0].row_id == 7
    tape.stop("BTCUSDT")
    assert _play(tape, ticks=20) == []
