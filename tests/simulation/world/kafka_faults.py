"""What can go wrong with a commit, and at which moments the fault plan may strike."""

from enum import Enum

from simulation.world.node import Node


class CommitFate(Enum):
    """What happens to one commit."""

    FINE = "fine"
    REQUEST_LOST = "request_lost"
    """The broker never hears of it; the library asks again after a silence."""
    REPLY_LOST = "reply_lost"
    """The broker commits; the library hears it only when it asks again after a silence."""
    LATE_COPY = "late_copy"
    """Delayed; the library asks again and succeeds, and the first copy reaches the broker during
    the next transaction of the same epoch (KAFKA-17754)."""
    ABORTABLE = "abortable"
    """A batch is refused: the transaction has to be aborted."""
    FATAL_COMMITTED = "fatal_committed"
    """The broker commits; the library breaks down instead of saying so."""
    FATAL_NOT_COMMITTED = "fatal_not_committed"
    """The library breaks down before the broker hears of the commit."""


class Stage(Enum):
    """Moments of a transaction at the broker, where a process death hurts most."""

    BATCH_APPENDED = "batch_appended"
    COMMIT_DECIDED = "commit_decided"


class KafkaFaults:
    """No faults at all; a fault plan overrides what it wants."""

    def commit_fate(self, node: Node) -> CommitFate:
        """Decide one commit's fate."""
        return CommitFate.FINE

    def silence_s(self) -> float:
        """Say how long the library waits for an answer that was lost before it asks again."""
        return 8.0

    def reached(self, node: Node, stage: Stage) -> None:
        """Hear that a node's transaction got this far; the plan may kill or freeze it now."""
