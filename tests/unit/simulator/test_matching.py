import random
from decimal import Decimal
from itertools import groupby, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k2.market import StreamKind
from k2.simulator.listing import LISTINGS
from k2.simulator.matching import LEVELS_SWEPT_MAX, Market
from k2.simulator.rows import TapeRow, parse_e8

START_US = 1_770_000_000_000_000
TRADING = [name for name, listing in LISTINGS.items() if listing.status == "TRADING"]


def _orders(name: str, *, seed: int, orders: int) -> list[list[TapeRow]]:
    market = Market(
        LISTINGS[name],
        rng=random.Random(seed),
        next_agg_id=LISTINGS[name].first_agg_id,
        next_fill_id=LISTINGS[name].first_fill_id,
    )
    times = (START_US + 300 * number for number in range(orders))
    return [market.take(trade_ts_us=time, event_ts_us=time + 50) for time in times]


def _of(rows: list[TapeRow], kind: StreamKind) -> list[TapeRow]:
    return [row for row in rows if row.kind is kind]


@settings(max_examples=60, deadline=None)
@given(name=st.sampled_from(TRADING), seed=st.integers(0, 2**32), orders=st.integers(1, 150))
def test_aggregates_and_fills_tell_one_story(name: str, seed: int, orders: int) -> None:
    tape = [row for order in _orders(name, seed=seed, orders=orders) for row in order]
    aggregates, fills = _of(tape, StreamKind.AGG_TRADE), _of(tape, StreamKind.TRADE)
    by_id = {fill.row_id: fill for fill in fills}
    listing = LISTINGS[name]
    assert [row.row_id for row in aggregates] == list(
        range(listing.first_agg_id, listing.first_agg_id + len(aggregates))
    )
    assert [row.row_id for row in fills] == list(
        range(listing.first_fill_id, listing.first_fill_id + len(fills))
    )
    assert aggregates[0].first_trade_id == listing.first_fill_id
    assert aggregates[-1].last_trade_id == fills[-1].row_id
    for before, after in pairwise(aggregates):
        assert after.first_trade_id == before.last_trade_id + 1
    for aggregate in aggregates:
        merged = [by_id[n] for n in range(aggregate.first_trade_id, aggregate.last_trade_id + 1)]
        assert Decimal(aggregate.quantity) == sum(Decimal(fill.quantity) for fill in merged)
        for fill in merged:
            assert fill.price == aggregate.price
            assert fill.trade_ts_us == aggregate.trade_ts_us
            assert fill.buyer_is_maker == aggregate.buyer_is_maker
            assert Decimal(fill.quantity) > 0
            assert Decimal(fill.price) > 0


@settings(max_examples=60, deadline=None)
@given(name=st.sampled_from(TRADING), seed=st.integers(0, 2**32))
def test_a_sweep_has_one_time_and_one_side_and_its_prices_run_away(name: str, seed: int) -> None:
    for order in _orders(name, seed=seed, orders=100):
        aggregates = _of(order, StreamKind.AGG_TRADE)
        assert 1 <= len(aggregates) <= LEVELS_SWEPT_MAX
        assert len({(row.trade_ts_us, row.buyer_is_maker) for row in order}) == 1
        prices = [parse_e8(row.price) for row in aggregates]
        for before, after in pairwise(prices):
            # A taker that sells (the buyer is the maker) walks down the bids, never up.
            if aggregates[0].buyer_is_maker:
                assert after < before
            else:
                assert after > before


def test_some_orders_sweep_several_prices_and_some_prices_merge_several_fills() -> None:
    orders = _orders("BTCUSDT", seed=1, orders=500)
    assert any(len(_of(order, StreamKind.AGG_TRADE)) > 1 for order in orders)
    assert any(row.last_trade_id > row.first_trade_id for order in orders for row in order)
    assert {row.buyer_is_maker for order in orders for row in order} == {True, False}


def test_two_orders_never_share_a_time_even_when_the_clock_stands_still() -> None:
    listing = LISTINGS["BTCUSDT"]
    market = Market(listing, rng=random.Random(1), next_agg_id=0, next_fill_id=0)
    rows = [market.take(trade_ts_us=START_US, event_ts_us=START_US) for _ in range(50)]
    times = [order[0].trade_ts_us for order in rows]
    assert times == sorted(set(times))
    assert all(row.event_ts_us >= row.trade_ts_us for order in rows for row in order)


@pytest.mark.parametrize("name", TRADING)
def test_a_price_walks_but_does_not_run_away(name: str) -> None:
    tape = [row for order in _orders(name, seed=7, orders=3000) for row in order]
    anchor = parse_e8(LISTINGS[name].price)
    prices = [parse_e8(row.price) for row in tape]
    assert len({price for price, _ in groupby(prices)}) > 1
    assert all(anchor // 2 < price < anchor * 2 for price in prices)
    tick, step = parse_e8(LISTINGS[name].tick), parse_e8(LISTINGS[name].step)
    assert all(price % tick == 0 for price in prices)
    assert all(parse_e8(row.quantity) % step == 0 for row in tape)


def test_at_the_lowest_price_a_sweep_ends_instead_of_repeating_the_price() -> None:
    listing = LISTINGS["XRPUSDT"]
    ended_early = 0
    for seed in range(200):
        market = Market(
            listing,
            rng=random.Random(seed),
            next_agg_id=0,
            next_fill_id=0,
            last_price=listing.tick,
        )
        order = market.take(trade_ts_us=START_US, event_ts_us=START_US)
        prices = [row.price for row in _of(order, StreamKind.AGG_TRADE)]
        assert len(set(prices)) == len(prices)
        assert all(parse_e8(price) > 0 for price in prices)
        ended_early += order[-1].buyer_is_maker and len(_of(order, StreamKind.TRADE)) > 1
    assert ended_early


def test_a_low_priced_token_trades_more_than_ten_to_the_tenth() -> None:
    tape = [row for order in _orders("BTTCUSDT", seed=3, orders=200) for row in order]
    assert max(Decimal(row.quantity) for row in tape) > 10**10


def test_the_same_seed_gives_the_same_tape_and_another_does_not() -> None:
    first = _orders("ETHUSDT", seed=5, orders=200)
    assert _orders("ETHUSDT", seed=5, orders=200) == first
    assert _orders("ETHUSDT", seed=6, orders=200) != first
