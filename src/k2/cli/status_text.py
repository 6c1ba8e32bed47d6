"""PURE: a status as words and rows, for a terminal."""

from k2.ingestion.health import Health, LatencyHealth, LegHealth, TapeHealth

SIGNS = {"healthy": "✓", "degraded": "▲", "unhealthy": "✕"}
LEG_COLUMNS = ("leg", "state", "age", "behind", "first with", "rotates in")
TAPE_COLUMNS = (
    *("symbol", "last trade", "per second", "heard ago", "position"),
    *("last two minutes", "state"),
)
BAR_CELLS = 24
_PARTS = {"written": "█", "waiting": "▒", "missing": "!", "held": "·", "declared": "|"}


def verdict(health: Health) -> str:
    """Return how it is, in one line."""
    rate = sum(tape.rate_per_s for tape in health.tapes)
    headline = {
        "healthy": "recording, all is well",
        "degraded": "recording, with something to watch",
        "unhealthy": "something is wrong",
    }[health.status]
    roles = sorted({shard.role.replace("_", " ") for shard in health.shards})
    role = health.role if health.role == "observer" else " and ".join(roles)
    role = role if health.phase == "recording" else health.phase
    return (
        f"{SIGNS[health.status]} {headline} · {role} · {len(health.symbols)} symbols · "
        f"{rate:.1f} trades/s · {health.connection_state.lower()} · "
        f"up {span(health.uptime_seconds)}"
    )


def problem_lines(health: Health) -> list[str]:
    """Return what is wrong, worst first, a line each."""
    return [f"{'✕' if one.level == 'bad' else '▲'} {one.text}" for one in health.problems]


def facts(health: Health) -> list[str]:
    """Return Kafka, lake, memory and shards, a line each."""
    commits, memory = health.commits, health.memory
    kafka = "answers" if health.kafka.reachable else f"away for {span(health.kafka.for_s)}"
    mean = "none yet" if commits.mean_s is None else f"{commits.mean_s * 1000:.1f} ms"
    shards = ", ".join(f"{shard.shard} {shard.role.replace('_', ' ')}" for shard in health.shards)
    return [
        f"kafka   {kafka} · commit takes {mean} · {commits.pending:,} trades wait",
        f"latency {_latency(health.latency)}",
        f"lake    {_lake(health)}",
        f"memory  {memory.rss_bytes / 1048576:.0f} MB · leak score {memory.leak_score:.2f}",
        f"shards  {shards or 'none yet'} · {'in' if health.member else 'not in'} the lease group",
    ]


def _latency(latency: LatencyHealth) -> str:
    if latency.exchange_to_us_s is None:
        return "no trade in the last minute"
    clock = "clocks not compared yet"
    if latency.clock_offset_s is not None and latency.clock_uncertainty_s is not None:
        clock = (
            f"our clock less theirs {latency.clock_offset_s * 1000:+.1f} ms"
            f" ± {latency.clock_uncertainty_s * 1000:.1f} ms"
        )
    commit = "–" if latency.to_commit_s is None else f"{latency.to_commit_s * 1000:.0f} ms"  # noqa: RUF001
    return (
        f"exchange to us {latency.exchange_to_us_s * 1000:.0f} ms ({clock}) · us to Kafka {commit}"
    )


def leg_row(leg: LegHealth, legs: list[LegHealth]) -> tuple[str, ...]:
    """Return one leg under ``LEG_COLUMNS``."""
    firsts = sum(one.first_copies for one in legs)
    state = {
        "live": "✓ live",
        "rotating": "⇄ rotating",
        "connecting": "… connecting",
        "waiting": f"✕ again in {span(leg.retry_in_s or 0)}",
    }[leg.state]
    return (
        leg.leg,
        state,
        span(leg.age_s) if leg.live else "–",  # noqa: RUF001
        f"{leg.lag_s * 1000:.1f} ms",
        f"{100 * leg.first_copies / firsts:.0f} %" if firsts else "–",  # noqa: RUF001
        "–" if leg.rotates_in_s is None else span(leg.rotates_in_s),  # noqa: RUF001
    )


def tape_row(tape: TapeHealth) -> tuple[str, ...]:
    """Return one symbol under ``TAPE_COLUMNS``."""
    return (
        tape.symbol,
        tape.last_price or "–",  # noqa: RUF001
        f"{tape.rate_per_s:.1f}",
        "–" if tape.last_trade_ts_us is None else span(tape.silent_s),  # noqa: RUF001
        "–" if tape.last_id is None else str(tape.last_id),  # noqa: RUF001
        bar(tape),
        tape_state(tape),
    )


def tape_state(tape: TapeHealth) -> str:
    """Return what is to be known of a tape, in a few words."""
    if (hole := tape.hole) is not None:
        ids = hole.last_id - hole.first_id + 1
        doing = "healing" if hole.healing else "waits"
        return f"✕ {ids:,} missing, {doing} {span(hole.open_s)}"
    if tape.silent:
        return "▲ silent"
    if tape.open_gap_ids:
        return f"▲ {tape.open_gap_ids:,} declared"
    return "… no trade yet" if tape.next_id is None else "✓ whole"


def bar(tape: TapeHealth) -> str:
    """Return what became of the last two minutes' ids; what is missing is always to be seen."""
    total = sum(one.ids for one in tape.recent)
    cells = ""
    for one in tape.recent:
        least = 0 if one.part in ("written", "waiting") else 1
        cells += _PARTS[one.part] * max(least, round(BAR_CELLS * one.ids / total))
    return cells[-BAR_CELLS:]


def span(seconds: float) -> str:
    """Return a duration as a person says it."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _lake(health: Health) -> str:
    lake = health.lake
    if lake is None or lake.archive is None:
        silent = lake is not None and lake.answered
        return f"silent for {span(lake.for_s)}" if lake and silent else "not on this machine"
    archive = lake.archive
    lag = sum(topic.lag for topic in archive.topics)
    fresh = "–" if archive.freshness_s is None else span(archive.freshness_s)  # noqa: RUF001
    return f"{archive.status} · queryable after {fresh} · {lag:,} records behind Kafka"
