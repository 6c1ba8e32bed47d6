"""What the ingestion's tests share."""

import asyncio
from collections.abc import Callable
from typing import Protocol

import pytest

from k2.market import Trade
from unit.trades import trade


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
    return trade
