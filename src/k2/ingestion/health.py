"""What ``/health`` says: contract R041, with role, shards and the last take-over beside it."""

from datetime import UTC, datetime
from typing import Any

import msgspec

from k2.binance.leg import Leg
from k2.ingestion.capture import Capture
from k2.ingestion.shard import Role


class ShardHealth(msgspec.Struct, frozen=True):
    """One shard as this process sees it."""

    shard: int
    role: str
    symbols: dict[str, int | None]
    """Symbol to the last id in the log."""
    pending: int
    takeovers: int
    last_takeover: str | None
    """When, UTC."""
    last_takeover_pause_s: float | None
    """From the last commit of the writer before to our first one."""
    holes: list[str]
    open_gaps: int


class ComparedHealth(msgspec.Struct, frozen=True):
    """How far a standby heard what the writer wrote."""

    symbol: str
    equal: int
    different: int
    not_heard: int
    not_written: int
    share_equal: float
    example: str


class LegHealth(msgspec.Struct, frozen=True):
    """One leg."""

    leg: str
    live: bool
    age_s: float
    first_copies: int
    copies: int
    lag_s: float


class Health(msgspec.Struct, frozen=True):
    """The whole process."""

    status: str
    connection_state: str
    symbols: list[str]
    uptime_seconds: float
    messages_received: int
    role: str
    member: bool
    shards: list[ShardHealth]
    legs: list[LegHealth]
    compared: list[ComparedHealth]


def health(capture: Capture, *, now_s: float) -> Health:
    """Return what a person, a load balancer or a deployment wants to know."""
    shards = [_shard(capture, shard) for shard in capture.shards]
    legs = [_leg(capture, feed.leg, now_s) for feed in capture.legs.feeds]
    connected = capture.legs.live
    degraded = any(not leg.live for leg in legs) or any(one.holes for one in shards)
    status = "unhealthy" if not connected else "degraded" if degraded else "healthy"
    return Health(
        status=status,
        connection_state="CONNECTED" if connected else "CONNECTING",
        symbols=sorted({symbol for one in shards for symbol in one.symbols}),
        uptime_seconds=round(now_s - capture.started_s, 1),
        messages_received=sum(figures.first for figures in capture.legs.figures.values()),
        role=capture.membership.wish.value,
        member=capture.membership.member,
        shards=shards,
        legs=legs,
        compared=[
            ComparedHealth(
                symbol,
                figures.equal,
                figures.different,
                figures.not_heard,
                figures.not_written,
                round(figures.share_equal, 6),
                figures.example,
            )
            for comparing in capture.comparing.values()
            for symbol, figures in sorted(comparing.figures.items())
        ],
    )


def _leg(capture: Capture, leg: Leg, now_s: float) -> LegHealth:
    figures = capture.legs.figures_of(leg)
    return LegHealth(
        leg=leg.name,
        live=leg.live,
        age_s=round(leg.age_s(now_s), 1),
        first_copies=figures.first,
        copies=figures.copies,
        lag_s=round(figures.lag_s, 6),
    )


def _shard(capture: Capture, shard: Any) -> ShardHealth:
    positions = shard.told.position.symbols
    return ShardHealth(
        shard=shard.settings.shard,
        role=shard.role.value,
        symbols={
            symbol: positions[symbol].last_id if symbol in positions else None
            for symbol in sorted(shard.tapes)
        },
        pending=shard.pending if shard.role is Role.WRITER else 0,
        takeovers=shard.takeovers,
        last_takeover=_time(shard.took_over_ns) if shard.takeovers else None,
        last_takeover_pause_s=round(shard.last_pause_s, 3) if shard.takeovers else None,
        holes=sorted(s for s, tape in shard.tapes.items() if tape.held or shard.spilled(s)),
        open_gaps=len(shard.told.position.open_gaps),
    )


def _time(wall_ns: int) -> str:
    return datetime.fromtimestamp(wall_ns / 1e9, UTC).isoformat(timespec="milliseconds")
