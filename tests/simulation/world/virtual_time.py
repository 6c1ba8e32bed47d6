"""An event loop on virtual time, and the nodes (simulated processes) whose code runs on it.

When nothing is ready the clock jumps to the next timer. Every callback belongs to a node, by the
context it carries, or to the world itself (no node); a frozen node's callbacks wait, a dead
node's are dropped.
"""

import asyncio
import contextvars
import heapq
import sys
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn, TypeVar, TypeVarTuple

from simulation.world.node import NODE, Node, NodeState

CALLBACKS_AT_ONE_INSTANT_MAX = 1_000_000
"""More than this without a step of the clock is a loop that never waits."""

CANCELLED_MAX = 10_000
"""Cancelled timers kept in the heap before it is swept."""

_CLOSE_TRIES_MAX = 20

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class DeadlockError(AssertionError):
    """Nothing is ready and no timer is set, yet somebody waits."""


class LivelockError(AssertionError):
    """The clock stands still because something never waits."""


class VirtualTimeLoop(asyncio.BaseEventLoop):
    """An asyncio loop without I/O or threads, whose clock moves by jumping."""

    _ready: deque[asyncio.Handle]

    def __init__(self) -> None:
        super().__init__()
        self.callbacks_run = 0
        self.blocked: set[Any] = set()
        """Greenlets of blocking calls under way, as ``blocking`` keeps them."""
        self.complaints: list[str] = []
        """What asyncio reported without anybody raising it: a task's error nobody looked at."""
        self.world_context = contextvars.Context()
        """For callbacks that belong to no node."""
        self._nodes: list[Node] = []
        self._now_s = 0.0
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._timers_set = 0
        self._timers_cancelled = 0
        self._callbacks_this_instant = 0
        self.set_exception_handler(_complain)

    # The world's side.

    def node(self, name: str, *, wall_offset_ns: int = 0) -> Node:
        """Make a process; it runs nothing yet."""
        node = Node(name, wall_offset_ns=wall_offset_ns)
        self._nodes.append(node)
        return node

    def spawn(self, node: Node, work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        """Start a task of a node."""
        return self.create_task(work, name=node.name, context=node.context.copy())

    def call_world(
        self, delay_s: float, callback: Callable[..., object], *args: Any
    ) -> asyncio.TimerHandle:
        """Call later, as the world: whatever happens to the node that asked for it."""
        return self.call_at(self._now_s + delay_s, callback, *args, context=self.world_context)

    def freeze(self, node: Node) -> None:
        """SIGSTOP: what is due for the node from now on waits, in order."""
        if node.state is NodeState.RUNNING:
            self._enter(node, NodeState.FROZEN)

    def thaw(self, node: Node) -> None:
        """SIGCONT: run what waited, in the order it came due."""
        if node.state is NodeState.FROZEN:
            self._ready.extend(node.parked)
            node.parked.clear()
            self._enter(node, NodeState.RUNNING)

    def kill(self, node: Node) -> None:
        """SIGKILL: nothing of the node ever runs again, no ``finally`` either."""
        if node.state is NodeState.DEAD:
            return
        node.parked.clear()
        # Kept until `dispose`: a collected coroutine would run its `finally` blocks.
        node.remains = [task for task in node.tasks if not task.done()]
        for task in node.remains:
            task._log_destroy_pending = False  # type: ignore[attr-defined]
        self._enter(node, NodeState.DEAD)

    def dispose(self) -> None:
        """Clear every node away and close. Their ``finally`` blocks reach nobody."""
        for node in self._nodes:
            node.watchers.clear()
            self.kill(node)
        silenced, sys.unraisablehook = sys.unraisablehook, _ignore
        try:
            for thread in list(self.blocked):
                _end(thread.throw)
            for node in self._nodes:
                for task in node.remains:
                    _end(task.get_coro().close)
                node.remains.clear()
            self._timers.clear()
            self._ready.clear()
        finally:
            sys.unraisablehook = silenced
        self.close()

    def _enter(self, node: Node, state: NodeState) -> None:
        node.state = state
        for watcher in list(node.watchers):
            watcher(node)

    # What asyncio asks of a loop.

    def time(self) -> float:
        """Return virtual seconds since the start."""
        return self._now_s

    def call_at(
        self,
        when: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        """Call at a virtual time; timers of one instant run in the order they were set."""
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        self._timers_set += 1
        heapq.heappush(self._timers, (when, self._timers_set, handle))
        return handle

    def create_task(
        self,
        coro: Any,
        *,
        name: object = None,
        context: contextvars.Context | None = None,
    ) -> "asyncio.Task[Any]":
        """Start a task, of the node whose context it gets."""
        node = NODE.get() if context is None else context.get(NODE)
        task = super().create_task(coro, name=str(name) if name else None, context=context)
        if node is not None:
            node.tasks.add(task)
        return task

    def run_in_executor(  # type: ignore[override]  # it runs nothing, so it returns nothing
        self, executor: Any, func: Any, *args: Any
    ) -> NoReturn:
        """Refuse: there are no threads here."""
        raise RuntimeError(f"a thread was asked for in the simulation: {func!r}")

    def _timer_handle_cancelled(self, _handle: asyncio.TimerHandle) -> None:
        self._timers_cancelled += 1

    def _run_once(self) -> None:
        ready, timers = self._ready, self._timers
        if not ready:
            self._jump()
        now_s = self._now_s
        while timers and timers[0][0] <= now_s:
            ready.append(heapq.heappop(timers)[2])
        running, frozen = NodeState.RUNNING, NodeState.FROZEN
        due = len(ready)
        for _ in range(due):
            handle = ready.popleft()
            if handle._cancelled:
                continue
            node = handle._context.get(NODE)  # type: ignore[attr-defined]
            if node is not None and node.state is not running:
                if node.state is frozen:
                    node.parked.append(handle)
                continue
            try:  # what Handle._run does, without the call
                handle._context.run(handle._callback, *handle._args)  # type: ignore[attr-defined]
            except BaseException as exc:
                # asyncio would log it and go on; here it ends the run.
                exc.add_note(f"in a callback of {node or 'the world'}")
                raise
        self.callbacks_run += due
        self._callbacks_this_instant += due
        if self._callbacks_this_instant > CALLBACKS_AT_ONE_INSTANT_MAX:
            raise LivelockError(f"the clock stands at {now_s}; " + self._who_waits())

    def _jump(self) -> None:
        timers = self._timers
        if self._timers_cancelled > CANCELLED_MAX:
            timers[:] = [timer for timer in timers if not timer[2]._cancelled]
            heapq.heapify(timers)
            self._timers_cancelled = 0
        while timers and timers[0][2]._cancelled:
            heapq.heappop(timers)
        if timers:
            if timers[0][0] > self._now_s:
                self._now_s = timers[0][0]
                self._callbacks_this_instant = 0
        elif not self._stopping:  # type: ignore[attr-defined]
            raise DeadlockError(self._who_waits())

    def _who_waits(self) -> str:
        lines = []
        for task in asyncio.all_tasks(self):
            frames = task.get_stack(limit=1)
            where = f"{frames[0].f_code.co_filename}:{frames[0].f_lineno}" if frames else "?"
            lines.append(f"{task.get_name()} at {where}")
        return "waiting: " + "; ".join(sorted(lines))


@contextmanager
def virtual_time() -> Iterator[VirtualTimeLoop]:
    """Provide a loop, and clear it away whatever happened."""
    loop = VirtualTimeLoop()
    try:
        yield loop
    finally:
        loop.dispose()


def _complain(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    assert isinstance(loop, VirtualTimeLoop)
    loop.complaints.append(f"{context.get('message')}: {context.get('exception')!r}")


def _end(close: Callable[[], object]) -> None:
    for _ in range(_CLOSE_TRIES_MAX):
        try:
            close()
        except BaseException:  # noqa: BLE001 - dead code's last words, whatever they are
            continue
        return


def _ignore(_unraisable: object) -> None:
    """Take what a cleared-away coroutine raised into nowhere."""
