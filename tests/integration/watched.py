"""One measured service of a room, whose metrics are waited for."""

from collections.abc import Callable

from integration.harness import Process, Room, wait_for
from integration.samples import Samples


class Watched:
    """A running service and what it says of itself."""

    def __init__(self, room: Room, service: Process) -> None:
        self.service = service
        self._room = room

    @property
    def samples(self) -> Samples:
        """What it says now."""
        return self._room.metrics(self.service)

    def value(self, name: str, **labels: str) -> float:
        """Return what a metric is now, summed over the labels that are not named."""
        return self.samples.value(name, **labels)

    def until(self, holds: Callable[[float], bool], name: str, **labels: str) -> float:
        """Wait for a value; return it."""
        seen: list[float] = []

        def reached() -> bool:
            assert self.service.running, f"it ended: {self.service.log()[-1000:]}"
            seen[:] = [self.value(name, **labels)]
            return holds(seen[0])

        try:
            wait_for(reached, what=name)
        except AssertionError as exc:
            raise AssertionError(f"{name}{labels or ''} stays {seen}: {exc}") from exc
        return seen[0]

    def reaches(self, least: float, name: str, **labels: str) -> float:
        """Wait until a metric is at least so much."""
        return self.until(lambda value: value >= least, name, **labels)

    def becomes(self, value: float, name: str, **labels: str) -> None:
        """Wait until a metric is exactly this."""
        self.until(lambda found: found == value, name, **labels)

    def rises(self, name: str, **labels: str) -> float:
        """Wait until a metric is more than it is now."""
        before = self.value(name, **labels)
        return self.until(lambda value: value > before, name, **labels)
