"""What the ingestion's tests share."""

import asyncio
from collections.abc import Callable
from decimal import Decimal
from typing import Protocol

import pytest

from k2.market import Origin, Side, Trade


class WaitUntil(Protocol):
    async def __call__(self, condition: Callable[[], bool], *, within_s: float = 10.0) -> None: ...


@pytest.fixture
def wait_until() -> WaitUntil:
    async def wait(condition: Callable[[], bool], *, within_s: float = 10.0) -> None:
        async with asyncio.timeout(within_s):
            while not condition():  # noqa: ASYNC110 any condition, not only an event
                await asyncio.sleep(0.001)

    return wait


@pytest.fixture
def trade_of() -> Callable[..., Trade]:
    def trade(source_id: int, symbol: str = "BTCUSDT", origin: Origin = Origin.STREAM) -> Trade:
        return Trade(
            symbol=symbol,
            source_id=source_id,
            price=Decimal(1),
            quantity=Decimal(1),
            first_trade_id=source_id,
            last_trade_id=source_id,
            trade_ts_us=1_767_225_600_122_000,
            event_ts_us=None,
            recv_ts_ns=1_767_225_600_200_000_000,
            taker_side=Side.BUY,
            best_match=None,
            origin=origin,
        )

    return trade
