"""Where blocking calls run: one thread each, so that the event loop never waits for Kafka."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

T = TypeVar("T")


class Worker(Protocol):
    """Runs blocking calls one after another, off the event loop."""

    async def run(self, call: Callable[[], T]) -> T:
        """Return what ``call`` returns, or raise what it raises."""

    def close(self) -> None:
        """Take no more calls; what runs is not waited for."""


class ThreadWorker:
    """A thread of its own."""

    def __init__(self, name: str) -> None:
        """Name the thread; it starts with the first call."""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)

    async def run(self, call: Callable[[], T]) -> T:
        """Return what ``call`` returns, or raise what it raises."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)

    def close(self) -> None:
        """Take no more calls; what runs is not waited for."""
        self._thread.shutdown(wait=False, cancel_futures=True)
