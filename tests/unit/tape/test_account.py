from decimal import Decimal

from k2.market import Origin, Side, Trade
from k2.tape.account import Account
from k2.tape.arbiter import Hold, SymbolTape


def _trade(source_id: int) -> Trade:
    return Trade(
        symbol="BTCUSDT",
        source_id=source_id,
        price=Decimal(1),
        quantity=Decimal(1),
        first_trade_id=source_id,
        last_trade_id=source_id,
        trade_ts_us=1,
        event_ts_us=1,
        recv_ts_ns=1,
        taker_side=Side.BUY,
        best_match=None,
        origin=Origin.STREAM,
    )


def test_every_trade_offered_is_somewhere() -> None:
    tape = SymbolTape("BTCUSDT", next_id=1, hold=Hold(limit=2))
    for source_id in (1, 1, 2, 5, 6, 7, 5):
        tape.offer(_trade(source_id))
    account = Account().add(tape)
    assert (account.offered, account.placed, account.copies) == (7, 2, 2)
    assert (account.held, account.dropped) == (2, 1)
    assert account.balances
    tape.let_go()
    account = Account().add(tape)
    assert (account.held, account.dropped) == (0, 3)
    assert account.balances


def test_a_trade_that_was_lost_on_the_way_shows() -> None:
    tape = SymbolTape("BTCUSDT", next_id=1)
    tape.offer(_trade(3))
    del tape._held[3]
    assert not Account().add(tape).balances


def test_accounts_of_several_shards_add_up() -> None:
    one, other = SymbolTape("BTCUSDT", next_id=1), SymbolTape("ETHUSDT", next_id=1)
    one.offer(_trade(1))
    other.offer(_trade(2))
    total = Account().add(one)
    total.join(Account().add(other))
    assert (total.offered, total.placed, total.held) == (2, 1, 1)
    assert total.balances
