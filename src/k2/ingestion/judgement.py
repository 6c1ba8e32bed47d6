"""PURE: what of all that a service says of itself is a problem, worst first."""

from k2.ingestion.health import (
    ArchiveHealth,
    Health,
    LakeHealth,
    LegHealth,
    Problem,
    ShardHealth,
    TapeHealth,
)

STALLED_S = 10.0
"""A writer with trades to commit that has not committed for so long does not get through."""

UNWRITTEN_S = 15.0
"""A shard nobody was seen to write for so long, while its trades arrive, has no writer."""

ARCHIVE_STALLED_S = 60.0
LEAK_SCORE_MAX = 0.8


def capture_problems(health: Health, *, registered: bool) -> list[Problem]:
    """Return what is wrong with a capture.

    Args:
        health: Everything else it says.
        registered: Whether its topics and schema are there.
    """
    problems = _start_and_end(health, registered=registered)
    if health.phase == "recording":
        problems += _hearing(health)
        if not health.symbols:
            text = "No symbol is recorded: see K2_SYMBOLS_FILE or BINANCE_SYMBOLS."
            problems.append(Problem("bad", "nothing_recorded", text))
    if health.kafka.reachable is False:
        problems.append(_kafka_away(health.kafka.at, health.kafka.problem, health.kafka.for_s))
    if health.schema_registry.reachable is False:
        goes_on = "" if health.phase == "starting" else "; recording goes on without it"
        problems.append(
            Problem(
                "warn",
                "registry_away",
                f"The schema registry at {health.schema_registry.at} has been away for "
                f"{_span(health.schema_registry.for_s)}{goes_on}.",
            )
        )
    problems += _writing(health)
    if health.promise_broken:
        text = f"{health.promise_broken} contradictions in this process's own account."
        problems.append(Problem("bad", "promise_broken", text))
    problems += [one for tape in health.tapes for one in _tape(tape)]
    if health.lake is not None:
        problems += _lake(health.lake)
    problems += [
        Problem(
            "warn",
            "heard_otherwise",
            f"{one.symbol}: {one.different:,} trades were heard otherwise than they were written.",
        )
        for one in health.compared
        if one.different
    ]
    problems += _memory(health.memory.leak_score)
    return _worst_first(problems)


def archive_problems(health: ArchiveHealth) -> list[Problem]:
    """Return what is wrong with an archive."""
    problems = []
    if health.phase == "starting":
        away = health.kafka.reachable is not True
        waits_for = f"Kafka at {health.kafka.at}" if away else "the lake"
        problems.append(Problem("bad", "starting", f"Not archiving yet: waits for {waits_for}."))
    if health.phase == "stopping":
        problems.append(Problem("warn", "stopping", "Stopping: commits what it holds."))
    if health.kafka.reachable is False:
        problems.append(_kafka_away(health.kafka.at, health.kafka.problem, health.kafka.for_s))
    for topic in health.topics:
        if topic.unread:
            text = f"{topic.topic}: Kafka does not give its records out ({topic.unread})."
            problems.append(Problem("bad", "topic_unread", text))
        if topic.lag_s > ARCHIVE_STALLED_S:
            text = (
                f"{topic.topic}: {topic.lag:,} records wait for the lake, the oldest for "
                f"{_span(topic.lag_s)}."
            )
            problems.append(Problem("bad", "table_commits_stalled", text))
    if health.promise_broken:
        text = f"{health.promise_broken} ids are missing or twice, or records unaccounted for."
        problems.append(Problem("bad", "promise_broken", text))
    problems += _memory(health.memory.leak_score)
    return _worst_first(problems)


def _start_and_end(health: Health, *, registered: bool) -> list[Problem]:
    if health.phase == "stopping":
        text = "Stopping: commits what it holds, or hands over."
        return [Problem("warn", "stopping", text)]
    if health.phase == "recording":
        return []
    if registered:
        waits_for = "the exchange"
    elif health.kafka.reachable is not True:
        waits_for = f"Kafka at {health.kafka.at}"
    else:
        waits_for = f"the schema registry at {health.schema_registry.at}"
    return [Problem("bad", "starting", f"Not recording yet: waits for {waits_for}.")]


def _hearing(health: Health) -> list[Problem]:
    if health.connection_state not in ("CONNECTED", "ROTATING"):
        text = "The exchange is not heard. What is missed now is fetched by id later."
        return [Problem("bad", "not_connected", text)]
    problems = []
    for leg in health.legs:
        if not leg.live:
            text = f"Leg {leg.leg} is down ({_trying(leg)}); another one carries its symbols."
            problems.append(Problem("warn", "leg_down", text))
    return problems


def _trying(leg: LegHealth) -> str:
    if leg.state == "connecting":
        return "connecting"
    return f"tries again in {leg.retry_in_s or 0:.0f} s"


def _writing(health: Health) -> list[Problem]:
    problems = []
    for shard in health.shards:
        if shard.unread:
            text = f"Shard {shard.shard}: its positions cannot be read ({shard.unread})."
            problems.append(Problem("warn", "positions_unread", text))
        if shard.role == "writer":
            if shard.waiting_s is not None and shard.waiting_s > STALLED_S:
                text = (
                    f"Shard {shard.shard}: no commit for {_span(shard.waiting_s)}, and "
                    f"{shard.pending:,} trades wait."
                )
                problems.append(Problem("bad", "commits_stalled", text))
        elif health.phase == "recording":
            seen_s = shard.last_news_age_s
            unseen_s = health.uptime_seconds if seen_s is None else seen_s
            comes = any(tape.shard == shard.shard and tape.rate_per_s for tape in health.tapes)
            if comes and unseen_s > UNWRITTEN_S:
                problems.append(_unwritten(shard, unseen_s))
    return problems


def _unwritten(shard: ShardHealth, unseen_s: float) -> Problem:
    text = f"Shard {shard.shard}: nobody was seen to write it for {_span(unseen_s)}"
    if shard.role == "taking_over":
        # It is up to this process, and it does not get through.
        return Problem("bad", "takeover_stalled", f"{text}; this process was let in and cannot.")
    return Problem("warn", "nobody_writes", f"{text}.")


def _tape(tape: TapeHealth) -> list[Problem]:
    problems = []
    if (hole := tape.hole) is not None:
        doing = "being fetched" if hole.healing else "the writer fetches them"
        ids = hole.last_id - hole.first_id + 1
        text = (
            f"{tape.symbol}: {ids:,} ids are missing ({hole.first_id} to {hole.last_id}) and "
            f"{hole.held:,} trades wait behind them for {_span(hole.open_s)}; {doing}."
        )
        problems.append(Problem("warn", "hole", text))
    if tape.silent:
        text = (
            f"{tape.symbol} has been silent for {_span(tape.silent_s)}; "
            f"{_span(tape.silent_allowed_s or 0)} would be usual."
        )
        problems.append(Problem("warn", "silent", text))
    if tape.open_gap_ids:
        text = f"{tape.symbol}: {tape.open_gap_ids:,} declared ids are still looked for."
        problems.append(Problem("warn", "gap_open", text))
    return problems


def _lake(lake: LakeHealth) -> list[Problem]:
    if lake.archive is not None:
        return [
            Problem("warn", f"archive_{one.what}", f"Archive: {one.text}")
            for one in lake.archive.problems
        ]
    if lake.answered:
        text = f"The archive at {lake.at} has not answered for {_span(lake.for_s)}."
        return [Problem("warn", "archive_away", text)]
    return []


def _kafka_away(at: str, problem: str, for_s: float) -> Problem:
    text = f"Kafka at {at} has been away for {_span(for_s)} ({problem or 'no answer'})."
    return Problem("bad", "kafka_away", text)


def _memory(leak_score: float) -> list[Problem]:
    if leak_score <= LEAK_SCORE_MAX:
        return []
    text = f"Memory grows steadily (leak score {leak_score:.2f})."
    return [Problem("warn", "memory_grows", text)]


def _worst_first(problems: list[Problem]) -> list[Problem]:
    return sorted(problems, key=lambda problem: problem.level != "bad")


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
