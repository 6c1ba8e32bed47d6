"""What a capture says of itself, from its first moment to its last: values in memory, no questions.

It exists before the capture does, so that an operator can see what a start waits for.
"""

import asyncio
from datetime import UTC, datetime

import msgspec
import structlog

from k2 import __version__
from k2.binance.leg import Leg
from k2.binance.session import State
from k2.ingestion.capture import Capture
from k2.ingestion.capture_figures import broken_accounts
from k2.ingestion.clock import Offset
from k2.ingestion.health import (
    CommitHealth,
    ComparedHealth,
    ConnectionState,
    Health,
    LatencyHealth,
    LegHealth,
    LegState,
    Phase,
    RotationHealth,
    ShardHealth,
    status_of,
)
from k2.ingestion.host import Host
from k2.ingestion.judgement import capture_problems
from k2.ingestion.looks import Dependency, Lake
from k2.ingestion.memory_trail import MemoryTrail
from k2.ingestion.shard import Role, Shard
from k2.ingestion.spread_trail import SpreadTrail
from k2.ingestion.tapes_status import TapesStatus
from k2.market import Trade
from k2.observability import metrics
from k2.settings import Settings

SAMPLE_EVERY_S = 1.0
NOT_RUN_S = 1.0
"""An event loop that comes so late had no CPU: the process was stopped, or its machine starved. A
lease is lost after 2.5 s of it."""

FRESH_S = 0.2
"""Whoever asks more often gets the same answer: asking costs the trades nothing."""

_log = structlog.get_logger()


class CaptureStatus:
    """One capture process. Everything here belongs to its event loop."""

    def __init__(
        self,
        settings: Settings,
        *,
        kafka: Dependency,
        registry: Dependency,
        lake: Lake | None,
        memory: MemoryTrail,
        stop: asyncio.Event,
        host: Host,
    ) -> None:
        """Begin before anything has answered; ``stop`` is set when the process is to end."""
        self.kafka = kafka
        self.registry = registry
        self.lake = lake
        self._settings = settings
        self._memory = memory
        self._stop = stop
        self._host = host
        self._began_s = host.monotonic_s()
        self._capture: Capture | None = None
        self._tapes = TapesStatus()
        self._commits = SpreadTrail(metrics.transaction_seconds.labels())
        self._arrivals = SpreadTrail(metrics.exchange_lag.labels())
        self._latencies = SpreadTrail(metrics.message_latency.labels())
        self._clock: Offset | None = None
        self._answer: tuple[float, Health] | None = None

    def tell_of(self, capture: Capture) -> None:
        """From now on tell of this capture, and see each trade's first copy."""
        self._capture = capture
        heard, told_before = self._tapes.heard, capture.intake.first

        def first(trade: Trade, shard: Shard) -> None:
            heard(trade)
            told_before(trade, shard)

        capture.intake.first = first

    def clock_is(self, offset: Offset) -> None:
        """Our clock is so far from the exchange's."""
        self._clock = offset

    async def run(self) -> None:
        """Sample for ever."""
        while True:
            self.sample()
            began_s = self._host.monotonic_s()
            await asyncio.sleep(SAMPLE_EVERY_S)
            late_s = self._host.monotonic_s() - began_s - SAMPLE_EVERY_S
            if late_s > NOT_RUN_S:
                _log.warning("process_did_not_run", for_s=round(late_s, 1))

    def sample(self) -> None:
        """Remember how things are now."""
        now_s = self._host.monotonic_s()
        self._memory.sample(now_s)
        for trail in (self._commits, self._arrivals, self._latencies):
            trail.sample(now_s)
        self._tapes.sample(self._shards, now_s)

    # What can be asked.

    @property
    def phase(self) -> Phase:
        """Where the process is in its life."""
        if self._stop.is_set():
            return "stopping"
        return "recording" if self.started else "starting"

    @property
    def started(self) -> bool:
        """Whether the start is over: Kafka, registry and exchange have answered."""
        return self._capture is not None and bool(self._capture.legs.feeds)

    def not_ready(self) -> list[str]:
        """Return why this process is not ready for what it is for; nothing when it is."""
        registered = self._capture is not None or self.registry.was_reachable
        connected = self._capture is not None and self._capture.legs.live
        return [
            why
            for why, holds in (
                ("starting", not self.started),
                ("not connected", not connected),
                ("Kafka cannot be reached", self.kafka.reachable is not True),
                ("the registry was never reached", not registered),
                ("shutting down", self._stop.is_set()),
            )
            if holds
        ]

    def health(self) -> Health:
        """Return all there is to say, at most ``FRESH_S`` old."""
        now_s = self._host.monotonic_s()
        if self._answer is None or now_s - self._answer[0] >= FRESH_S:
            self._answer = (now_s, self._health(now_s))
        return self._answer[1]

    # How.

    @property
    def _shards(self) -> list[Shard]:
        return self._capture.shards if self._capture is not None else []

    def _health(self, now_s: float) -> Health:
        capture = self._capture
        legs = [self._leg(feed.leg, now_s) for feed in capture.legs.feeds] if capture else []
        last_ns = self._tapes.last_recv_ts_ns
        age_s = None if last_ns is None else round((self._host.wall_ns() - last_ns) / 1e9, 3)
        shards = [self._shard(shard, now_s) for shard in self._shards]
        mean_s, p99_s = self._commits.mean_and_p99()
        found = Health(
            status="healthy",
            connection_state=self._connection_state(legs),
            symbols=self._symbols(),
            uptime_seconds=round(now_s - self._began_s, 1),
            messages_received=sum(f.first for f in capture.legs.figures.values()) if capture else 0,
            last_message_age_seconds=age_s,
            version=__version__,
            phase=self.phase,
            ready=not self.not_ready(),
            problems=[],
            now_ts_us=self._host.wall_ns() // 1000,
            stream=self._settings.stream.value,
            environment=self._settings.environment,
            role=capture.membership.wish.value if capture else self._settings.role,
            member=capture.membership.member if capture else False,
            shards=shards,
            legs=legs,
            tapes=self._tapes.health(capture, now_s) if capture is not None else [],
            rotation=_rotation(legs),
            kafka=self.kafka.health(),
            schema_registry=self.registry.health(),
            commits=CommitHealth(
                round(mean_s, 4) if mean_s is not None else None,
                p99_s,
                sum(shard.pending for shard in shards),
            ),
            latency=self._latency(),
            lake=self.lake.health() if self.lake is not None else None,
            memory=self._memory.health(),
            compared=_compared(capture) if capture else [],
            promise_broken=len(broken_accounts(capture)) if capture else 0,
        )
        problems = capture_problems(found, registered=capture is not None)
        return msgspec.structs.replace(found, problems=problems, status=status_of(problems))

    def _symbols(self) -> list[str]:
        """Return what is recorded; before that is known, what the settings name."""
        if not self.started:
            return sorted(self._settings.symbols)
        return sorted(symbol for shard in self._shards for symbol in shard.tapes)

    def _connection_state(self, legs: list[LegHealth]) -> ConnectionState:
        states = {leg.state for leg in legs}
        if self._capture is not None and self._capture.legs.live:
            return "ROTATING" if "rotating" in states else "CONNECTED"
        opening = "connecting" in states or self.phase == "starting"
        return "CONNECTING" if opening else "DISCONNECTED"

    def _leg(self, leg: Leg, now_s: float) -> LegHealth:
        assert self._capture is not None  # noqa: S101 - there are no legs without one
        figures = self._capture.legs.figures_of(leg)
        state = leg_state(leg)
        rotates_in_s = leg.rotates_at_s - now_s
        return LegHealth(
            leg=leg.name,
            live=leg.live,
            state=state,
            age_s=round(leg.age_s(now_s), 1),
            first_copies=figures.first,
            copies=figures.copies,
            lag_s=round(figures.lag_s, 6),
            rotates_in_s=round(max(0.0, rotates_in_s), 1) if rotates_in_s < float("inf") else None,
            retry_in_s=round(max(0.0, leg.retry_at_s - now_s), 1) if state == "waiting" else None,
        )

    def _shard(self, shard: Shard, now_s: float) -> ShardHealth:
        positions = shard.told.position.symbols
        writing = shard.role is Role.WRITER
        commit_age_s = now_s - shard.last_commit_s if shard.last_commit_s else None
        news_age_s = now_s - shard.followed_s if shard.followed_s else None
        return ShardHealth(
            shard=shard.settings.shard,
            role=shard.role.value,
            symbols={
                symbol: positions[symbol].last_id if symbol in positions else None
                for symbol in sorted(shard.tapes)
            },
            pending=shard.pending if writing else 0,
            takeovers=shard.takeovers,
            last_takeover=_time(shard.took_over_ns) if shard.takeovers else None,
            last_takeover_pause_s=round(shard.last_pause_s, 3) if shard.takeovers else None,
            holes=sorted(s for s, tape in shard.tapes.items() if tape.held or shard.spilled(s)),
            open_gaps=len(shard.told.position.open_gaps),
            last_commit_age_s=round(commit_age_s, 2) if writing and commit_age_s else None,
            waiting_s=round(now_s - shard.waits_since_s, 2) if shard.waits_since_s else None,
            last_news_age_s=round(news_age_s, 2) if not writing and news_age_s else None,
            unread=shard.log.unread,
        )

    def _latency(self) -> LatencyHealth:
        lag_s, _ = self._arrivals.mean_and_p99()
        mean_s, p99_s = self._latencies.mean_and_p99()
        clock = self._clock
        return LatencyHealth(
            exchange_to_us_s=_rounded(lag_s),
            clock_offset_s=_rounded(clock.offset_s) if clock else None,
            clock_uncertainty_s=_rounded(clock.uncertainty_s) if clock else None,
            to_commit_s=_rounded(mean_s),
            to_commit_p99_s=p99_s,
        )


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 4)


def leg_state(leg: Leg) -> LegState:
    """Say what a leg does now."""
    if leg.live:
        rotating = leg.current is not None and leg.newcomer is not None
        return "rotating" if rotating else "live"
    under_way = (State.OPENING, State.SUBSCRIBING)
    return "connecting" if any(one.state in under_way for one in leg.sessions()) else "waiting"


def _rotation(legs: list[LegHealth]) -> RotationHealth:
    due = [(leg.rotates_in_s, leg.leg) for leg in legs if leg.rotates_in_s is not None]
    in_s, name = min(due, default=(None, None))
    return RotationHealth(name, in_s, [leg.leg for leg in legs if leg.state == "rotating"])


def _compared(capture: Capture) -> list[ComparedHealth]:
    return [
        ComparedHealth(
            symbol,
            figures.equal,
            figures.different,
            figures.not_heard,
            figures.not_written,
            figures.share_equal,
            figures.example,
        )
        for comparing in capture.comparing.values()
        for symbol, figures in sorted(comparing.figures.items())
    ]


def _time(wall_ns: int) -> str:
    return datetime.fromtimestamp(wall_ns / 1e9, UTC).isoformat(timespec="milliseconds")
