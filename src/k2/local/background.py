"""A stack for code without an event loop: tests, notebooks, benchmarks."""

import asyncio
from collections.abc import Coroutine
from threading import Thread
from types import TracebackType
from typing import Any, Self, TypeVar

from k2.local.stack import Stack, StackAddress

_Result = TypeVar("_Result")


class BackgroundStack:
    """Runs a stack, and its registry proxy, in a thread of its own until the block ends.

    The kernel ends the stack's processes when that thread ends, so that nothing stays behind.
    """

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, name="local-stack", daemon=True)

    def __enter__(self) -> Self:
        """Start thread and stack."""
        self._thread.start()
        try:
            self.call(self.stack.start())
        except BaseException:
            self._end_thread()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop both."""
        try:
            self.call(self.stack.stop())
        finally:
            self._end_thread()

    @property
    def address(self) -> StackAddress:
        """Where the stack is reached."""
        return self.stack.address

    @property
    def pids(self) -> dict[str, int]:
        """Process ids by name: ``kafka``, ``registry``."""
        return self.stack.pids

    def call(self, coroutine: Coroutine[Any, Any, _Result]) -> _Result:
        """Run a coroutine of the stack (``stack.watch()``, ``stack.restart_broker()``)."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def _end_thread(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()
