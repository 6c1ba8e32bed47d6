"""What the services say of themselves: one shape for ``/health``, the status page and ``k2 top``.

Contract R041 and R042. Ages and durations are seconds as of the answer, so that a reader needs no
clock that agrees with ours.
"""

from typing import Literal

import msgspec

Status = Literal["healthy", "degraded", "unhealthy"]
Phase = Literal["starting", "recording", "stopping"]
ConnectionState = Literal["CONNECTED", "ROTATING", "CONNECTING", "DISCONNECTED"]
LegState = Literal["live", "rotating", "connecting", "waiting"]
Part = Literal["written", "waiting", "missing", "held", "declared"]


class Problem(msgspec.Struct, frozen=True):
    """One thing that is not as it should be."""

    level: Literal["bad", "warn"]
    """``bad``: the record does not grow as it should. ``warn``: it does, with less to spare."""
    what: str
    """What kind, such as ``leg_down``."""
    text: str
    """One sentence for a person."""


class DependencyHealth(msgspec.Struct, frozen=True):
    """Kafka or the registry, as of the last look."""

    at: str
    reachable: bool | None
    """None before the first look is over."""
    for_s: float
    """How long it has been so."""
    problem: str = ""


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
    last_commit_age_s: float | None
    """Since our last transaction, as its writer; None when it was never ours."""
    waiting_s: float | None
    """How long trades have waited for one, as its writer; None when none does."""
    last_news_age_s: float | None
    """Since another process was last seen to write it."""
    unread: str = ""
    """Why its positions cannot be read now: a standby then sees no writer."""


class HoleHealth(msgspec.Struct, frozen=True):
    """Missing ids that later trades wait for; both ends inclusive."""

    first_id: int
    last_id: int
    held: int
    """Trades that wait behind it."""
    open_s: float
    healing: bool
    """Whether this process fetches them, as the shard's writer."""


class Stretch(msgspec.Struct, frozen=True):
    """So many consecutive ids of which the same is true."""

    part: Part
    ids: int


class TapeHealth(msgspec.Struct, frozen=True):
    """One symbol."""

    symbol: str
    shard: int
    first_id: int | None
    last_id: int | None
    """The last id in the log."""
    next_id: int | None
    """The first id not on our tape, which runs ahead of the log."""
    rate_per_s: float
    """Trades that came, over the last ten seconds or so."""
    last_price: str | None
    last_quantity: str | None
    last_side: str | None
    last_trade_ts_us: int | None
    silent_s: float
    """Since a first copy of a trade came."""
    silent_allowed_s: float | None
    """What this symbol's rhythm makes ordinary; None while it is not known."""
    silent: bool
    """Whether it has been silent for longer than that."""
    hole: HoleHealth | None
    open_gap_ids: int
    """Declared ids that are still looked for."""
    recent: list[Stretch]
    """What became of the ids of the last two minutes, oldest first."""


class LegHealth(msgspec.Struct, frozen=True):
    """One leg."""

    leg: str
    live: bool
    state: LegState
    age_s: float
    first_copies: int
    """Trades of which it brought the first copy."""
    copies: int
    lag_s: float
    """How far its copies trail the first ones."""
    rotates_in_s: float | None
    retry_in_s: float | None
    """Until it tries again; None unless it waits for that."""


class RotationHealth(msgspec.Struct, frozen=True):
    """Which connection is replaced next, make before break."""

    leg: str | None
    in_s: float | None
    under_way: list[str]


class LatencyHealth(msgspec.Struct, frozen=True):
    """From the exchange to Kafka, means of the last minute; None while nothing can be told."""

    exchange_to_us_s: float | None
    """Our clock at receipt less theirs at sending: below 0 where our clock is behind theirs."""
    clock_offset_s: float | None
    """Our clock less theirs, as far as REST can tell."""
    clock_uncertainty_s: float | None
    """By how much that may be wrong, either way."""
    to_commit_s: float | None
    """From receipt to the commit of its Kafka transaction."""
    to_commit_p99_s: float | None
    """At most so long took 99 of 100; the upper end of a histogram's bucket."""


class CommitHealth(msgspec.Struct, frozen=True):
    """Kafka transactions of this process, over the last minute."""

    mean_s: float | None
    """From begin to commit; None while there was none."""
    p99_s: float | None
    """At most so long took 99 of 100; the upper end of a histogram's bucket."""
    pending: int
    """Trades that wait for theirs."""


class MemoryHealth(msgspec.Struct, frozen=True):
    """What the process uses."""

    rss_bytes: int
    leak_score: float
    """Contract R125: below 0.5 is good, above 0.8 a leak."""
    every_s: float
    trend_bytes: list[int]
    """RSS, one sample each ``every_s``, oldest first."""


class ComparedHealth(msgspec.Struct, frozen=True):
    """How far a standby heard what the writer wrote."""

    symbol: str
    equal: int
    different: int
    not_heard: int
    not_written: int
    share_equal: float | None
    """Of all judged trades; None while none was judged."""
    example: str


class TopicHealth(msgspec.Struct, frozen=True):
    """How far the table is behind one topic."""

    topic: str
    lag: int
    """Offsets between the table's end and the topic's."""
    lag_s: float
    """Age of the oldest record read and in no table yet."""
    unread: str = ""
    """Why Kafka does not give its records out; nothing when it does."""


class TableHealth(msgspec.Struct, frozen=True):
    """One table, since the archive started."""

    table: str
    rows: int
    waiting: int
    """Records that wait for the next commit."""
    last_commit_age_s: float | None


class ArchiveHealth(msgspec.Struct, frozen=True):
    """What ``k2 archive`` says on its own port."""

    status: Status
    phase: Phase
    version: str
    uptime_seconds: float
    problems: list[Problem]
    kafka: DependencyHealth
    topics: list[TopicHealth]
    tables: list[TableHealth]
    freshness_s: float | None
    """From receipt of a trade to a queryable row, mean of the last minute; None without rows."""
    freshness_p99_s: float | None
    promise_broken: int
    """Ids that nothing covers or that came twice, records nothing accounts for; always 0."""
    memory: MemoryHealth


class LakeHealth(msgspec.Struct, frozen=True):
    """The archive as seen from the capture: another process, perhaps on another machine."""

    at: str
    answers: bool | None
    """None before the first look is over."""
    answered: bool
    """Whether it ever did: one that never did may be on another machine."""
    for_s: float
    """How long it has been as it is."""
    archive: ArchiveHealth | None
    """Its last answer, while it answers."""


class Health(msgspec.Struct, frozen=True):
    """The whole capture process."""

    status: Status
    connection_state: ConnectionState
    symbols: list[str]
    uptime_seconds: float
    messages_received: int
    last_message_age_seconds: float | None
    version: str
    phase: Phase
    ready: bool
    problems: list[Problem]
    now_ts_us: int
    """The host's clock."""
    stream: str
    environment: str
    """Whose ids these are; ``simulated`` is the built-in exchange."""
    role: str
    """What an operator wants: auto or observer."""
    member: bool
    shards: list[ShardHealth]
    legs: list[LegHealth]
    tapes: list[TapeHealth]
    rotation: RotationHealth
    kafka: DependencyHealth
    schema_registry: DependencyHealth
    commits: CommitHealth
    latency: LatencyHealth
    lake: LakeHealth | None
    """None where it is not looked for (K2_ARCHIVE_HEALTH_PORT=0)."""
    memory: MemoryHealth
    compared: list[ComparedHealth]
    promise_broken: int
    """Contradictions in this process's own account; always 0."""


def status_of(problems: list[Problem]) -> Status:
    """Return the status that the worst problem makes."""
    levels = {problem.level for problem in problems}
    return "unhealthy" if "bad" in levels else "degraded" if levels else "healthy"
