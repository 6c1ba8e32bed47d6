"""A consumer's membership in a group: what the library and the application do about it."""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from enum import Enum
from typing import TYPE_CHECKING, Any

from simulation.world.node import Node, NodeState

if TYPE_CHECKING:
    from simulation.world.kafka_groups import GroupCoordinator


class GroupEvent(Enum):
    """What a poll serves."""

    ASSIGN = "assign"
    REVOKE = "revoke"
    LOST = "lost"
    EXCEEDED = "exceeded"
    """The application did not poll for max.poll.interval.ms; the library has left the group."""


class Member:
    """One consumer's membership, the library's side and the coordinator's in one."""

    def __init__(
        self, groups: "GroupCoordinator", node: Node, config: Mapping[str, Any], topic: str
    ) -> None:
        self.name = ""
        self.topic = topic
        self.node = node
        self.group = groups.group(str(config["group.id"]), topic)
        self.session_timeout_s = float(config.get("session.timeout.ms", 45_000)) / 1000
        self.heartbeat_s = float(config.get("heartbeat.interval.ms", 3_000)) / 1000
        self.served: set[int] = set()
        """Partitions the application was given and has not given back."""
        self.heard: Callable[[], None] = _nothing
        self.left = False
        self.in_poll = False
        """Whether the application is waiting in a poll: it cannot be late for one then."""
        self.expiry: asyncio.TimerHandle | None = None
        self._groups = groups
        self._poll_within_s = float(config.get("max.poll.interval.ms", 300_000)) / 1000
        self._polled_s = groups.now_s
        self._poll_check: asyncio.TimerHandle | None = None
        self._events: deque[tuple[GroupEvent, list[int]]] = deque()
        node.watchers.append(self._node_changed)

    # The application's side.

    def join(self) -> None:
        """Ask to be a member, under a new name."""
        self._polled_s = self._groups.now_s
        self._arm_poll_check()
        self._groups.join(self)

    def leave(self) -> None:
        """Leave now; if the broker does not hear it, the session expires."""
        self.left = True
        self._events.clear()
        if self._poll_check is not None:
            self._poll_check.cancel()
        self._groups.leave(self)

    def polled(self) -> None:
        """Note that the application polled."""
        self._polled_s = self._groups.now_s

    def next_event(self) -> tuple[GroupEvent, list[int]] | None:
        """Return what the application has to hear next."""
        if not self._events:
            return None
        kind, numbers = self._events.popleft()
        return kind, sorted(self.served) if kind is GroupEvent.LOST else numbers

    def settled(self, kind: GroupEvent, numbers: list[int]) -> None:
        """Note that the application has dealt with an event."""
        if kind is GroupEvent.ASSIGN:
            self.served.update(numbers)
        elif kind is GroupEvent.REVOKE:
            self.served.difference_update(numbers)
            self._groups.given_back(self, numbers)
        else:
            self.served.clear()
            if not self.left:
                self.join()

    # The library's side.

    def hear(self, name: str, kind: GroupEvent, numbers: list[int]) -> None:
        """Take the coordinator's word, unless it was for an earlier membership."""
        if name != self.name or self.left:
            return
        if kind is GroupEvent.LOST:
            self.name = ""
            self._events.clear()
        self._events.append((kind, numbers))
        self.heard()

    def silent(self) -> bool:
        """Say whether the coordinator gets no heartbeats of it."""
        return self.left or self.node.state is not NodeState.RUNNING

    def _node_changed(self, node: Node) -> None:
        if node.state is NodeState.RUNNING:
            self._groups.woke(self)
        else:
            self._groups.fell_silent(self)

    def _arm_poll_check(self) -> None:
        if self._poll_check is not None:
            self._poll_check.cancel()
        self._poll_check = self._groups.at(
            self.node, self._polled_s + self._poll_within_s, self._check_poll
        )

    def _check_poll(self) -> None:
        if self.left:
            return
        if self.in_poll:
            self._polled_s = self._groups.now_s
        if self._groups.now_s < self._polled_s + self._poll_within_s or not self.name:
            if self.name:
                self._arm_poll_check()
            return
        self._events.clear()
        self._groups.leave(self)
        self.name = ""
        self._events.extend([(GroupEvent.EXCEEDED, []), (GroupEvent.LOST, [])])
        self.heard()


def _nothing() -> None:
    """Tell nobody."""
