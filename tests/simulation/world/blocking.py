"""Blocking code on virtual time: a greenlet in place of a thread.

``run_blocking`` runs a call in a greenlet of its own. Where a fake's method would block a thread
it calls ``wait_s`` or ``wait_for``: that switches back to the event loop, and the loop switches
into the greenlet again when the time has come.
"""

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar, cast

# It ships no type information (checked 2026-11-21).
from greenlet import GreenletExit, getcurrent, greenlet  # type: ignore[import-untyped]

from simulation.world.node import NodeGoneError
from simulation.world.virtual_time import VirtualTimeLoop

T = TypeVar("T")


class BlockedLoopError(AssertionError):
    """A blocking call was made on the event loop itself: every socket would stand still."""


def running_loop() -> VirtualTimeLoop:
    """Return the simulation's loop."""
    return cast("VirtualTimeLoop", asyncio.get_running_loop())


async def run_blocking(call: Callable[[], T]) -> T:
    """Run a blocking call as a thread would, and give back what it returns or raises.

    Like a thread, it goes on when its caller is cancelled.
    """
    future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
    _start(call, future, then=lambda: None)
    return await future


class Worker:
    """One blocking thread: calls run one after the other, as on ``ThreadPoolExecutor(1)``."""

    def __init__(self, name: str = "") -> None:
        """Name the thread."""
        self.name = name
        self._queue: deque[tuple[Callable[[], Any], asyncio.Future[Any]]] = deque()
        self._busy = False
        self._closed = False

    async def run(self, call: Callable[[], T]) -> T:
        """Run the call when its turn comes.

        Raises:
            RuntimeError: After ``close``.
        """
        if self._closed:
            raise RuntimeError("this worker takes no more calls")
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._queue.append((call, future))
        self._next()
        return await future

    def close(self) -> None:
        """Take no more calls; those queued are cancelled, what runs is not waited for."""
        self._closed = True
        for _, future in self._queue:
            future.cancel()
        self._queue.clear()

    def _next(self) -> None:
        while self._queue and not self._busy:
            call, future = self._queue.popleft()
            if future.cancelled():
                continue
            self._busy = True
            _start(call, future, then=self._done)

    def _done(self) -> None:
        self._busy = False
        self._next()


def wait_s(seconds: float) -> None:
    """Block the calling greenlet."""
    me = _me()
    running_loop().call_later(seconds, me.switch)
    me.parent.switch()


def wait_for(future: "asyncio.Future[Any]", *, timeout_s: float | None) -> bool:
    """Block the calling greenlet until the future is done or the time is up; say which."""
    if future.done():
        return True
    me = _me()
    waiting = True

    def resume(*_: object) -> None:
        nonlocal waiting
        if waiting:
            waiting = False
            me.switch()

    future.add_done_callback(resume)
    timer = running_loop().call_later(timeout_s, resume) if timeout_s is not None else None
    try:
        me.parent.switch()
    finally:
        waiting = False
        future.remove_done_callback(resume)
        if timer is not None:
            timer.cancel()
    return future.done()


def _me() -> Any:
    me = getcurrent()
    if me.parent is None:
        raise BlockedLoopError("a call that blocks was made on the event loop")
    return me


def _start(call: Callable[[], T], future: "asyncio.Future[T]", *, then: Callable[[], None]) -> None:
    blocked = running_loop().blocked

    def body() -> None:
        try:
            result = call()
        except (GreenletExit, NodeGoneError):
            return  # its node is gone, nobody waits
        except BaseException as exc:  # noqa: BLE001 - handed to whoever waits, as a thread's is
            if not future.done():
                future.set_exception(exc)
        else:
            if not future.done():
                future.set_result(result)
        finally:
            blocked.discard(thread)
        then()

    thread = greenlet(body)
    thread.gr_context = contextvars.copy_context()
    blocked.add(thread)
    thread.switch()
