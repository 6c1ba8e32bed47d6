"""What the simulator's tests share: waiting on a condition, never on luck."""

import asyncio
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import pytest

from unit.simulator.children import Children


class WaitUntil(Protocol):
    async def __call__(self, condition: Callable[[], bool], *, within_s: float = 10.0) -> None: ...


@pytest.fixture
def wait_until() -> WaitUntil:
    async def wait(condition: Callable[[], bool], *, within_s: float = 10.0) -> None:
        async with asyncio.timeout(within_s):
            while not condition():  # noqa: ASYNC110 any condition, not only an event
                await asyncio.sleep(0.005)

    return wait


@pytest.fixture
def real_recording() -> Path:
    """The recorded Binance frames beside the checkout; not copied into the repository."""
    name = "binance-spot-btcusdt-20240808.ndjson.gz"
    path = Path(__file__).resolve().parents[4] / "shared" / "data" / name
    if not path.exists():
        absent = f"the recorded data beside the checkout is absent: {name}"
        if os.environ.get("CI") == "true":
            pytest.fail(absent)  # there it is part of the machine: a missing part fails
        pytest.skip(absent)
    return path


@pytest.fixture
def children() -> Iterator[Children]:
    """Child processes that end with the test."""
    found = Children()
    yield found
    found.end()
