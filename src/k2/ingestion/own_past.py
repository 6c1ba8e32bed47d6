"""PURE: whoever follows a log late hears first what it wrote there itself."""

from k2.kafka.position import ShardPosition

OWN_PAST_S = 30.0
"""A follower has caught up with its own process's last commit by then, whatever else is wrong."""


class OwnPast:
    """Where our last term left a shard's tape, until its log was followed so far."""

    def __init__(self) -> None:
        """Begin with nothing written."""
        self._left: tuple[ShardPosition, float] | None = None

    def begin(self, position: ShardPosition, now_s: float) -> None:
        """Our term ended with this position."""
        self._left = position, now_s + OWN_PAST_S

    def end(self) -> None:
        """The log was read to its end."""
        self._left = None

    def holds(self, followed: ShardPosition, now_s: float) -> bool:
        """Say whether the log, as followed so far, tells only of our own term."""
        if self._left is None:
            return False
        ours, until_s = self._left
        behind = any(
            symbol not in followed.symbols or followed.symbols[symbol].next_id < where.next_id
            for symbol, where in ours.symbols.items()
        )
        if behind and now_s < until_s:
            return True
        self._left = None
        return False
