"""Starting, stopping and exit codes of the services (contract R072, R160)."""

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from enum import IntEnum
from typing import Any, TypeVar

import structlog

from k2.binance.limits import backoff_s
from k2.errors import K2Error, RetryError

DELAY_MIN_S = 0.2
DELAY_MAX_S = 10.0

_log = structlog.get_logger()
T = TypeVar("T")


class ExitCode(IntEnum):
    """What a service's exit means."""

    CLEAN = 0
    FAILED = 1
    CONFIGURATION = 2
    DRAINED_INCOMPLETELY = 3
    DEPENDENCY_UNAVAILABLE = 4


class UnavailableError(K2Error):
    """A dependency is absent at start and the operator asked not to wait for it."""


async def until_it_works(
    what: str,
    call: Callable[[], Awaitable[T]],
    *,
    draw: Callable[[], float] = random.random,
    fail_fast: bool = False,
    delay_min_s: float = DELAY_MIN_S,
    delay_max_s: float = DELAY_MAX_S,
) -> T:
    """Await ``call`` until it does not raise ``RetryError``, ever more slowly; one log line each.

    Raises:
        UnavailableError: At the first failure, if ``fail_fast``.
    """
    attempt = 0
    while True:
        try:
            return await call()
        except RetryError as exc:
            if fail_fast:
                raise UnavailableError(f"{what} is not available: {exc}") from exc
            delay_s = backoff_s(
                attempt=attempt, delay_min_s=delay_min_s, delay_max_s=delay_max_s, draw=draw()
            )
            attempt += 1
            _log.warning(
                "dependency_not_available", what=what, reason=str(exc), again_in_s=round(delay_s, 1)
            )
            await asyncio.sleep(delay_s)


def stop_on_signals() -> asyncio.Event:
    """Return the event that SIGTERM or SIGINT sets; a second signal ends the process at once."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        if stop.is_set():
            os._exit(ExitCode.FAILED)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    return stop


@asynccontextmanager
async def beside(*work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Keep work going for as long as the context lasts; what fails is told at once."""
    tasks = [asyncio.create_task(one) for one in work]
    for task in tasks:
        task.add_done_callback(_tell_failure)
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _tell_failure(task: "asyncio.Task[None]") -> None:
    if not task.cancelled() and (problem := task.exception()) is not None:
        _log.error("background_work_ended", reason=repr(problem))


def first_of(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the failure that brought a task group down."""
    problem = group.exceptions[0]
    return first_of(problem) if isinstance(problem, BaseExceptionGroup) else problem
