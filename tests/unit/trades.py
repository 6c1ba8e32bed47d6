"""Trades of which only the id matters."""

from decimal import Decimal

from k2.market import Origin, Side, Trade


def trade(
    source_id: int,
    symbol: str = "BTCUSDT",
    origin: Origin = Origin.STREAM,
    *,
    price: str = "1",
    trade_ts_us: int = 1_767_225_600_122_000,
) -> Trade:
    """Return a trade of one fill."""
    return Trade(
        symbol=symbol,
        source_id=source_id,
        price=Decimal(price),
        quantity=Decimal(1),
        first_trade_id=source_id,
        last_trade_id=source_id,
        trade_ts_us=trade_ts_us,
        event_ts_us=None,
        recv_ts_ns=1_767_225_600_200_000_000,
        taker_side=Side.BUY,
        best_match=None,
        origin=origin,
    )
