"""Consumer groups: classic protocol, cooperative-sticky, heartbeats from the library's thread.

A member counts as alive while its node runs and it polls often enough. A frozen or dead node's
member expires a session timeout later; after a thaw it learns so at its next poll.
"""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from simulation.world.kafka_member import GroupEvent, Member
from simulation.world.node import Node

if TYPE_CHECKING:
    from simulation.world.kafka_world import KafkaWorld

REBALANCE_MIN_S = 0.03
REBALANCE_MAX_S = 0.1


class Group:
    """What the coordinator knows of one group over one topic."""

    def __init__(self, name: str, topic: str) -> None:
        self.name = name
        self.topic = topic
        self.members: dict[Member, str] = {}
        """In order of joining; the name each got."""
        self.owner: dict[int, Member] = {}
        self.revoking: set[int] = set()
        self.rebalancing = False


class GroupCoordinator:
    """Keeps the groups; every change of membership leads to a rebalance."""

    def __init__(self, kafka: "KafkaWorld") -> None:
        self.rebalances = 0
        self.expired = 0
        self._kafka = kafka
        self._groups: dict[str, Group] = {}
        self._names = 0
        self._outages = 0

    @property
    def now_s(self) -> float:
        """Virtual time."""
        return self._kafka.loop.time()

    def at(self, node: Node, when_s: float, call: Callable[[], None]) -> asyncio.TimerHandle:
        """Set a timer on a library thread of a node."""
        return self._kafka.loop.call_at(when_s, call, context=node.context)

    def group(self, name: str, topic: str) -> Group:
        """Return a group, new or known."""
        return self._groups.setdefault(name, Group(name, topic))

    def owners(self, name: str) -> dict[int, Node]:
        """Return which node the coordinator thinks holds each partition."""
        group = self._groups.get(name)
        return {} if group is None else {p: m.node for p, m in sorted(group.owner.items())}

    # Requests of members.

    def join(self, member: Member) -> None:
        """Take a member in, once the broker hears of it."""

        def admit() -> str:
            self._remove(member)
            self._names += 1
            # Known to the member at once: a rebalance may speak to it before this answer comes.
            member.name = f"{member.node.name}-{self._names}"
            member.group.members[member] = member.name
            if member.silent():
                self.fell_silent(member)
            return member.name

        def answer(_: str | None, __: object) -> None:
            if not member.left:
                self._rebalance_soon(member.group)

        self._kafka.ask(member.node, admit, answer)

    def leave(self, member: Member) -> None:
        """Let a member go; unheard while the broker is down."""
        name = member.name

        def forget() -> None:
            # A member that is closed while it joins does not know its name yet.
            if member.left or member.group.members.get(member) == name:
                self._remove(member)

        self._kafka.send(forget)

    def given_back(self, member: Member, numbers: list[int]) -> None:
        """Free partitions a member was asked for."""
        group = member.group

        def free() -> None:
            for number in numbers:
                if group.owner.get(number) is member:
                    del group.owner[number]
                    group.revoking.discard(number)
            self._rebalance_soon(group)

        self._kafka.ask(member.node, free, lambda _, __: None)

    # Sessions.

    def fell_silent(self, member: Member) -> None:
        """Expect no heartbeat any more: its session ends a timeout after the last one."""
        if member.expiry is None and self._kafka.up and member in member.group.members:
            since_last_s = self._kafka.rng.uniform(0, member.heartbeat_s)
            wait_s = max(0.0, member.session_timeout_s - since_last_s)
            member.expiry = self._kafka.loop.call_world(wait_s, self._expire, member)

    def woke(self, member: Member) -> None:
        """Hear heartbeats again, in time or not."""
        if member.left:
            return  # a closed consumer's join that came late: its session just runs out
        if member.expiry is not None:
            member.expiry.cancel()
            member.expiry = None
        if member.name and member not in member.group.members and not member.left:
            self._tell(member, self._kafka.rng.uniform(0.001, 0.01), GroupEvent.LOST, [])

    def broker_went_down(self) -> None:
        """Stop every session; a member that hears nothing for its timeout gives up by itself."""
        self._outages += 1
        for member in self._members():
            if member.expiry is not None:
                member.expiry.cancel()
                member.expiry = None
            wait_s = member.session_timeout_s - self._kafka.rng.uniform(0, member.heartbeat_s)
            self._kafka.tell(
                member.node, max(0.0, wait_s), self._give_up, member, member.name, self._outages
            )

    def broker_came_up(self) -> None:
        """Start every session afresh."""
        for member in self._members():
            if member.silent():
                self.fell_silent(member)
        for group in self._groups.values():
            self._rebalance_soon(group)

    def _give_up(self, member: Member, name: str, outage: int) -> None:
        if not self._kafka.up and self._outages == outage:
            member.hear(name, GroupEvent.LOST, [])

    def _expire(self, member: Member) -> None:
        member.expiry = None
        if self._kafka.up and member.silent():
            self.expired += 1
            self._remove(member)

    def _members(self) -> list[Member]:
        return [member for group in self._groups.values() for member in group.members]

    def _remove(self, member: Member) -> None:
        group = member.group
        if group.members.pop(member, None) is None:
            return
        for number in [n for n, owner in group.owner.items() if owner is member]:
            del group.owner[number]
            group.revoking.discard(number)
        self._rebalance_soon(group)

    # Who gets what.

    def _rebalance_soon(self, group: Group) -> None:
        if not group.rebalancing:
            group.rebalancing = True
            wait_s = self._kafka.rng.uniform(REBALANCE_MIN_S, REBALANCE_MAX_S)
            self._kafka.loop.call_world(wait_s, self._rebalance, group)

    def _rebalance(self, group: Group) -> None:
        group.rebalancing = False
        if not group.members or not self._kafka.up:
            return  # the broker, once back, begins with one
        self.rebalances += 1
        count = self._kafka.partitions_of(group.topic)
        held: dict[Member, list[int]] = {member: [] for member in group.members}
        for number, owner in sorted(group.owner.items()):
            if number not in group.revoking:
                held[owner].append(number)
        # The fuller ones keep one more: nobody gives up what balance does not demand.
        by_fullness = sorted(held, key=lambda member: -len(held[member]))
        base, extra = divmod(count, len(held))
        quota = {m: base + (place < extra) for place, m in enumerate(by_fullness)}
        for member, numbers in held.items():
            if surplus := numbers[quota[member] :]:
                group.revoking.update(surplus)
                self._tell(member, self._kafka.hop_s(), GroupEvent.REVOKE, surplus)
        free = [number for number in range(count) if number not in group.owner]
        for member in sorted(held, key=lambda member: len(held[member])):
            room = quota[member] - len(held[member])
            given, free = free[: max(0, room)], free[max(0, room) :]
            if given:
                group.owner.update(dict.fromkeys(given, member))
                self._tell(member, self._kafka.hop_s(), GroupEvent.ASSIGN, given)

    def _tell(self, member: Member, delay_s: float, kind: GroupEvent, numbers: list[int]) -> None:
        name = member.group.members.get(member, member.name)
        self._kafka.tell(member.node, delay_s, member.hear, name, kind, numbers)
