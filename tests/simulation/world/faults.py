"""The fault plan: one seed decides which faults a run has at all, how often, and when.

Swarm testing: a run with everything on hides what a run with little on finds, so each seed
switches some kinds off entirely.
"""

import random
from collections import Counter
from collections.abc import Collection

import structlog

from simulation.world.fault_kinds import FaultKind
from simulation.world.fault_strikes import Strikes
from simulation.world.kafka_faults import CommitFate, KafkaFaults, Stage
from simulation.world.node import Node
from simulation.world.world import World

_FATES = {
    FaultKind.COMMIT_REQUEST_LOST: CommitFate.REQUEST_LOST,
    FaultKind.COMMIT_REPLY_LOST: CommitFate.REPLY_LOST,
    FaultKind.COMMIT_LATE_COPY: CommitFate.LATE_COPY,
    FaultKind.COMMIT_ABORTABLE: CommitFate.ABORTABLE,
    FaultKind.COMMIT_FATAL_DONE: CommitFate.FATAL_COMMITTED,
    FaultKind.COMMIT_FATAL_NOT_DONE: CommitFate.FATAL_NOT_COMMITTED,
}
_IN_COMMIT = (FaultKind.CRASH_IN_COMMIT, FaultKind.FREEZE_IN_COMMIT)

ON_SHARE = 0.4
"""Of the kinds, those a seed has on."""

RARELY_ON = {FaultKind.ROWS_MISSING: 0.2, FaultKind.VOID_ROW: 0.15, FaultKind.ALL_AT_ONCE: 0.2}
"""Kinds on in fewer seeds: they change what the tape may hold, or drown the others."""

EVERY_MIN_S = 8.0
EVERY_MAX_S = 60.0
"""The mean time between two strikes of one kind; each seed draws its own."""

_log = structlog.get_logger()


class FaultPlan(KafkaFaults):
    """Strikes a world until it is told to stop."""

    def __init__(
        self,
        world: World,
        *,
        only: Collection[FaultKind] | None = None,
        every_s: tuple[float, float] = (EVERY_MIN_S, EVERY_MAX_S),
    ) -> None:
        """Draw the seed's kinds, or take ``only`` these; nothing strikes before ``begin``."""
        self.struck: Counter[FaultKind] = Counter()
        self._world = world
        self._rng = rng = random.Random(f"faults {world.seed}")
        drawn = [kind for kind in FaultKind if rng.random() < RARELY_ON.get(kind, ON_SHARE)]
        self.kinds = drawn if only is None else list(only)
        self._every_s = {kind: rng.uniform(*every_s) for kind in self.kinds}
        self._calm = True
        self._fates: list[FaultKind] = []
        self._in_commit: list[FaultKind] = []
        self._strikes = Strikes(world, rng)
        world.kafka.faults = self

    def begin(self) -> None:
        """Strike from now on."""
        self._calm = False
        for kind in self.kinds:
            self._schedule(kind)

    def end(self) -> None:
        """Strike no more, and mend what does not mend by itself."""
        self._calm = True
        self._fates.clear()
        self._in_commit.clear()
        world = self._world
        world.kafka.come_up()
        world.kafka.unreadable_until_s.clear()
        world.exchange.rest_state.lag_s = min(world.exchange.rest_state.lag_s, 1.0)
        for instance in world.instances:
            if instance.node is not None:
                world.loop.thaw(instance.node)
            instance.change_role("auto")
        _log.info("faults_end")

    # Kafka asks.

    def commit_fate(self, node: Node) -> CommitFate:
        """Give a commit the fate that waits for one, if any."""
        del node
        if not self._fates:
            return CommitFate.FINE
        kind = self._fates.pop(self._rng.randrange(len(self._fates)))
        self._strikes_now(kind)
        return _FATES[kind]

    def silence_s(self) -> float:
        """Draw how long the library waits before it asks again; some calls time out meanwhile."""
        return self._rng.uniform(1.0, 9.0)

    def reached(self, node: Node, stage: Stage) -> None:
        """Kill or freeze a node in the middle of its commit."""
        if not self._in_commit or self._rng.random() < 0.3:
            return
        for instance in self._world.instances:
            if instance.node is node and instance.running:
                kind = self._in_commit.pop(0)
                self._strikes_now(kind)
                if kind is FaultKind.CRASH_IN_COMMIT:
                    instance.crash(down_s=self._rng.uniform(0.1, 8.0))
                else:
                    instance.freeze(for_s=self._rng.uniform(1.0, 12.0))
                return

    # The schedule.

    def _schedule(self, kind: FaultKind) -> None:
        wait_s = self._rng.expovariate(1 / self._every_s[kind])
        self._world.loop.call_world(wait_s, self._due, kind)

    def _due(self, kind: FaultKind) -> None:
        if self._calm:
            return
        waiting = self._fates if kind in _FATES else self._in_commit
        if kind in _FATES or kind in _IN_COMMIT:
            if kind not in waiting:
                waiting.append(kind)
        elif self._strikes.strike(kind):
            self._strikes_now(kind)
        self._schedule(kind)

    def _strikes_now(self, kind: FaultKind) -> None:
        self.struck[kind] += 1
        _log.info("fault", kind=kind.value)
