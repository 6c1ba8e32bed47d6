from decimal import Decimal

import msgspec

from k2.market import Origin, Side
from k2.tape.comparison import SETTLED_AFTER_S, Comparison, Figures, Print
from unit.trades import trade


def _counts(figures: Figures) -> tuple[int, int, int, int]:
    return figures.equal, figures.different, figures.not_heard, figures.not_written


def test_equal_trades_match_whichever_side_comes_first() -> None:
    comparison = Comparison()
    comparison.heard(trade(5), 0.0)
    comparison.written("BTCUSDT", 5, Print.of(trade(5)), 0.1)
    comparison.written("BTCUSDT", 6, Print.of(trade(6)), 0.2)
    comparison.heard(trade(6), 0.3)
    assert _counts(comparison.figures["BTCUSDT"]) == (2, 0, 0, 0)
    assert comparison.figures["BTCUSDT"].share_equal == 1


def test_nothing_judged_is_no_share_at_all() -> None:
    assert Figures().share_equal is None
    assert Figures(not_heard=1).share_equal == 0


def test_every_told_field_counts_and_is_named() -> None:
    for name, value in (
        ("price", Decimal(2)),
        ("quantity", Decimal(2)),
        ("taker_side", Side.SELL),
        ("first_trade_id", 4),
        ("last_trade_id", 6),
        ("trade_ts_us", 2),
    ):
        comparison = Comparison()
        comparison.heard(trade(5), 0.0)
        other = msgspec.structs.replace(trade(5), **{name: value})
        comparison.written("BTCUSDT", 5, Print.of(other), 0.1)
        assert _counts(comparison.figures["BTCUSDT"]) == (0, 1, 0, 0)
        assert comparison.figures["BTCUSDT"].example == f"5 differs in {name}"


def test_how_a_trade_reached_us_does_not_count() -> None:
    comparison = Comparison()
    healed = msgspec.structs.replace(trade(5), origin=Origin.HEALED, recv_ts_ns=9, best_match=True)
    comparison.heard(trade(5), 0.0)
    comparison.written("BTCUSDT", 5, Print.of(healed), 0.1)
    assert comparison.figures["BTCUSDT"].equal == 1


def test_what_one_side_lacks_is_judged_after_a_while() -> None:
    comparison = Comparison()
    comparison.heard(trade(5), 0.0)
    comparison.heard(trade(6), 0.0)
    comparison.written("BTCUSDT", 6, Print.of(trade(6)), 0.1)
    comparison.written("BTCUSDT", 7, Print.of(trade(7)), 0.2)
    comparison.settle(SETTLED_AFTER_S - 0.1)
    assert _counts(comparison.figures["BTCUSDT"]) == (1, 0, 0, 0)
    comparison.settle(SETTLED_AFTER_S + 1)
    assert _counts(comparison.figures["BTCUSDT"]) == (1, 0, 1, 1)
    assert comparison.figures["BTCUSDT"].share_equal == round(1 / 3, 6)


def test_a_writer_that_is_away_for_long_is_not_blamed() -> None:
    comparison = Comparison(pending_max=3)
    for source_id in range(5, 11):
        comparison.heard(trade(source_id), 0.0)
    comparison.settle(1e6)
    assert _counts(comparison.figures["BTCUSDT"]) == (0, 0, 0, 0)
    for source_id in range(5, 11):  # Kafka is back: it writes what it held, and fetches the rest
        comparison.written("BTCUSDT", source_id, Print.of(trade(source_id)), 1e6)
    comparison.settle(2e6)
    assert _counts(comparison.figures["BTCUSDT"]) == (3, 0, 0, 0), "what was let go is not judged"


def test_what_was_written_before_we_listened_is_not_judged() -> None:
    comparison = Comparison()
    comparison.written("BTCUSDT", 4, Print.of(trade(4)), 0.0)
    comparison.heard(trade(5), 0.0)
    comparison.written("BTCUSDT", 4, Print.of(trade(4)), 0.1)
    comparison.settle(1e6)
    assert _counts(comparison.figures["BTCUSDT"]) == (0, 0, 0, 0)


def test_waiting_is_bounded() -> None:
    comparison = Comparison(pending_max=3)
    comparison.heard(trade(0), 0.0)
    for source_id in range(1, 6):
        comparison.written("BTCUSDT", source_id, Print.of(trade(source_id)), 0.0)
    assert comparison.figures["BTCUSDT"].not_heard == 2


def test_becoming_the_writer_forgets_what_waits() -> None:
    comparison = Comparison()
    comparison.heard(trade(5), 0.0)
    comparison.forget()
    comparison.settle(1e6)
    assert _counts(comparison.figures["BTCUSDT"]) == (0, 0, 0, 0)
