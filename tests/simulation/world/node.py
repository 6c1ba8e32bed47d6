"""The nodes: simulated processes, and how code finds out whose it is."""

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import Any
from weakref import WeakSet

EPOCH_NS = 1_767_225_600 * 10**9
"""The wall clock at virtual time 0: 2026-01-01, UTC."""


class NodeGoneError(BaseException):
    """A dead node's code called the world; raised only while its remains are cleared away.

    Not an ``Exception``: no retry loop of the code under test may catch it.
    """


class NodeState(Enum):
    """What a node's process is doing."""

    RUNNING = "running"
    FROZEN = "frozen"
    DEAD = "dead"


class Node:
    """One simulated process. A restart is a new node of the same name."""

    def __init__(self, name: str, *, wall_offset_ns: int = 0) -> None:
        """Be running; ``watchers`` are told of every later change of ``state``."""
        self.name = name
        self.state = NodeState.RUNNING
        self.wall_offset_ns = wall_offset_ns
        self.watchers: list[Callable[[Node], None]] = []
        self.parked: deque[asyncio.Handle] = deque()
        self.tasks: WeakSet[asyncio.Task[Any]] = WeakSet()
        self.remains: list[asyncio.Task[Any]] = []
        self.context = contextvars.copy_context()
        """For callbacks of the world that run this node's code: its library threads, its socket."""
        self.context.run(NODE.set, self)

    @property
    def alive(self) -> bool:
        """Whether its process exists; a frozen one does."""
        return self.state is not NodeState.DEAD

    def check_alive(self) -> None:
        """Refuse a call of code that is being cleared away.

        Raises:
            NodeGoneError: If the node is dead.
        """
        if self.state is NodeState.DEAD:
            raise NodeGoneError(self.name)

    def __repr__(self) -> str:
        return f"Node({self.name}, {self.state.value})"


NODE: contextvars.ContextVar[Node | None] = contextvars.ContextVar("node", default=None)


def current_node() -> Node:
    """Return the node whose code is running.

    Raises:
        LookupError: If it is the world's.
    """
    node = NODE.get()
    if node is None:
        raise LookupError("this code runs outside every node")
    return node


class NodeClock:
    """A node's clocks, for wiring that takes its clock as an argument."""

    def __init__(self, loop: asyncio.AbstractEventLoop, node: Node) -> None:
        """Read the loop's time; the wall clock may be off by the node's offset."""
        self._loop = loop
        self._node = node

    def monotonic_s(self) -> float:
        """Return virtual seconds."""
        return self._loop.time()

    def wall_ns(self) -> int:
        """Return the node's own idea of the time since the epoch."""
        return EPOCH_NS + round(self._loop.time() * 1e9) + self._node.wall_offset_ns
