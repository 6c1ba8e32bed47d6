"""What an archive says of itself: what it counts anyway, as values in memory."""

import asyncio
from collections.abc import Callable, Mapping

import msgspec

from k2 import __version__
from k2.ingestion.health import ArchiveHealth, Phase, TableHealth, TopicHealth, status_of
from k2.ingestion.host import Host
from k2.ingestion.judgement import archive_problems
from k2.ingestion.looks import Dependency
from k2.ingestion.memory_trail import MemoryTrail
from k2.ingestion.spread_trail import SpreadTrail
from k2.observability import metrics
from k2.observability.families import Counters

SAMPLE_EVERY_S = 1.0


class ArchiveStatus:
    """One archive process. Its own loop's, which the table commits do not block."""

    def __init__(
        self, *, kafka: Dependency, memory: MemoryTrail, stop: asyncio.Event, host: Host
    ) -> None:
        """Begin before anything has answered; ``stop`` is set when the process is to end."""
        self.kafka = kafka
        self.started = False
        """Whether Kafka and the lake have answered."""
        self.unread: Callable[[], Mapping[str, str]] = dict
        """Topic to why Kafka does not give its records out, or nothing."""
        self._memory = memory
        self._stop = stop
        self._host = host
        self._began_s = host.monotonic_s()
        self._freshness = SpreadTrail(metrics.lake_freshness.labels())

    async def run(self) -> None:
        """Sample for ever."""
        while True:
            self.sample()
            await asyncio.sleep(SAMPLE_EVERY_S)

    def sample(self) -> None:
        """Remember how things are now."""
        now_s = self._host.monotonic_s()
        self._memory.sample(now_s)
        self._freshness.sample(now_s)

    def not_ready(self) -> list[str]:
        """Return why this process is not ready for what it is for; nothing when it is."""
        return [
            why
            for why, holds in (
                ("starting", not self.started),
                ("Kafka cannot be reached", self.kafka.reachable is not True),
                ("shutting down", self._stop.is_set()),
            )
            if holds
        ]

    def health(self) -> ArchiveHealth:
        """Return all there is to say."""
        metrics.archive.measure()
        mean_s, p99_s = self._freshness.mean_and_p99()
        found = ArchiveHealth(
            status="healthy",
            phase=self._phase,
            version=__version__,
            uptime_seconds=round(self._host.monotonic_s() - self._began_s, 1),
            problems=[],
            kafka=self.kafka.health(),
            topics=_topics(self.unread()),
            tables=_tables(self._host.wall_s()),
            freshness_s=round(mean_s, 3) if mean_s is not None else None,
            freshness_p99_s=p99_s,
            promise_broken=int(metrics.promise_broken.labels().value),
            memory=self._memory.health(),
        )
        problems = archive_problems(found)
        return msgspec.structs.replace(found, problems=problems, status=status_of(problems))

    @property
    def _phase(self) -> Phase:
        if self._stop.is_set():
            return "stopping"
        return "recording" if self.started else "starting"


def _topics(unread: Mapping[str, str]) -> list[TopicHealth]:
    lag: dict[str, int] = {}
    lag_s: dict[str, float] = {}
    for labels, value in _series(metrics.consumer_lag):
        lag[labels["topic"]] = lag.get(labels["topic"], 0) + int(value)
    for labels, value in _series(metrics.consumer_lag_seconds):
        lag_s[labels["topic"]] = max(value, lag_s.get(labels["topic"], 0.0))
    return [
        TopicHealth(name, lag[name], round(lag_s.get(name, 0.0), 2), unread.get(name, ""))
        for name in sorted(lag)
    ]


def _tables(wall_s: float) -> list[TableHealth]:
    waiting = {labels["table"]: int(value) for labels, value in _series(metrics.batch_size)}
    landed_s = {labels["table"]: value for labels, value in _series(metrics.last_commit_timestamp)}
    tables = []
    for labels, rows in sorted(_series(metrics.rows_written), key=lambda one: one[0]["table"]):
        name = labels["table"]
        at_s = landed_s.get(name, 0.0)
        age_s = round(max(0.0, wall_s - at_s), 1) if at_s else None
        tables.append(TableHealth(name, int(rows), waiting.get(name, 0), age_s))
    return tables


def _series(family: Counters) -> list[tuple[dict[str, str], float]]:
    return [(sample.labels, sample.value) for sample in family.metric().samples]
