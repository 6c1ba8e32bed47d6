"""What a service asks the machine it runs on: the time, and luck.

The simulation gives every simulated process a host of its own.
"""

import random
import time
from collections.abc import Callable
from typing import NamedTuple


class Host(NamedTuple):
    """Sources of time and randomness."""

    monotonic_s: Callable[[], float]
    """Seconds of a clock that never jumps; only differences mean anything."""
    wall_ns: Callable[[], int]
    """Nanoseconds since the epoch; may jump."""
    draw: Callable[[], float]
    """Uniform random numbers in [0, 1)."""

    def wall_s(self) -> float:
        """Return seconds since the epoch."""
        return self.wall_ns() / 1e9


MACHINE = Host(time.monotonic, time.time_ns, random.random)
