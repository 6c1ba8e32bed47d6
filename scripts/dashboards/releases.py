"""The dashboard for whoever releases: builds side by side, and what is left of the error budget."""

from grafana_foundation_sdk.builders.dashboard import Dashboard
from scripts.dashboards.frame import board, fill
from scripts.dashboards.panels import (
    BLUE,
    GREEN,
    RED,
    YELLOW,
    Meaning,
    Query,
    Told,
    lines,
    number,
    rows,
    timeline,
)
from scripts.dashboards.selectors import ANY_CAPTURE, BUILDS
from scripts.dashboards.units import (
    BYTES,
    COUNT,
    MESSAGES_PER_SECOND,
    NONE,
    PER_SECOND,
    SECONDS,
    SHARE,
)

ALLOWED = 0.001
"""What the objective of 99.9 % leaves."""
FAST, STEADY = 14.4, 6
"""The burn rates at which BinanceErrorBudgetBurn* page."""
BUILD = "{{color}} {{version}} {{revision}} {{instance}}"


def by_build(expression: str) -> Query:
    """Name an expression's series, which have job and instance, after the build that runs there."""
    return Query(
        f"{expression} * on (job, instance) group_left (color, version, revision) "
        f"k2_build_info{ANY_CAPTURE}",
        legend=BUILD,
    )


def of_process(expression: str) -> str:
    """Sum what a process has several series of."""
    return f"sum by (job, instance) ({expression})"


BUDGET = (
    number(
        "Capture available, 7 days",
        Query("1 - k2:capture_stale:ratio_7d", legend="of the time"),
        told=Told(
            "Share of the time with a trade younger than 30 s from any instance. 99.9 % is the "
            "objective, 99.5 % the floor. Time nobody watched counts as good.",
            action="Below: no release until it has recovered.",
            runbook="error-budget",
        ),
        unit=SHARE,
        limits={0: RED, 0.995: YELLOW, 0.999: GREEN},
        width=8,
    ),
    number(
        "Burn rate, last hour",
        Query(f"k2:sli_bad:ratio_1h / {ALLOWED}", legend="{{sli}}"),
        told=Told(
            "1 spends the month's budget in a month. capture: no fresh trade. completeness: "
            "ids declared missing. freshness: trades later than 5 s in the lake.",
            action="Above 14.4 it pages: a month's budget lasts 2 days. Take the release back.",
            runbook="error-budget",
        ),
        unit=COUNT,
        limits={1: YELLOW, FAST: RED},
        width=16,
    ),
    lines(
        "Burn rate of 5 minutes",
        Query(f"k2:sli_bad:ratio_5m / {ALLOWED}", legend="{{sli}}"),
        told=Told(
            "How fast the budget is spent right now.",
            action="It shows within minutes whether a countermeasure works.",
            runbook="error-budget",
        ),
        unit=COUNT,
        limits={1: YELLOW, FAST: RED},
    ),
    lines(
        "Burn rate of 6 hours",
        Query(f"k2:sli_bad:ratio_6h / {ALLOWED}", legend="{{sli}}"),
        told=Told(
            "Slow leaks of the budget.",
            action="Above 6 it pages: a month's budget lasts 5 days.",
            runbook="error-budget",
        ),
        unit=COUNT,
        limits={1: YELLOW, STEADY: RED},
    ),
    lines(
        "Burn rate of 3 days",
        Query(f"k2:sli_bad:ratio_3d / {ALLOWED}", legend="{{sli}}"),
        told=Told(
            "Whether the month will end within its budget.",
            action="Above 1 it will not: a ticket, and no risky release.",
            runbook="error-budget",
        ),
        unit=COUNT,
        limits={1: YELLOW},
    ),
    rows(
        "Alerts that fire",
        Query('ALERTS{alertstate="firing"}', legend="{{alertname}}"),
        told=Told(
            "The Watchdog is always among them; an empty table: the rules are not loaded.",
            action="Each alert names its heading of the runbook.",
            runbook="watchdog",
        ),
        columns=("alertname", "severity", "job", "instance", "symbol", "sli", "trigger"),
        width=24,
    ),
)

SIDE_BY_SIDE = (
    rows(
        "Builds that run",
        Query(f"k2_build_info{BUILDS}", legend="{{instance}}"),
        told=Told(
            "Which build answers where.",
            action="Two colours outside of a deployment: one was left running.",
            runbook="rollback-triggers",
        ),
        columns=("job", "instance", "color", "version", "revision", "python"),
    ),
    timeline(
        "Who writes",
        Query(f"k2_shard_writer{ANY_CAPTURE}", legend="shard {{shard}} {{instance}}"),
        told=Told(
            "In a hand-over the green bar goes from one row to another, without a pause.",
            action="Nobody for longer than 4 seconds: see the logs for `lease`.",
            runbook="no-writer",
        ),
        meanings={1: Meaning("WRITES", color=GREEN), 0: Meaning("STANDS BY", color=BLUE)},
        width=12,
    ),
    lines(
        "Received by build",
        by_build(of_process(f"rate(binance_messages_received_total{ANY_CAPTURE}[5m])")),
        told=Told(
            "Blue and green hear the same market: their lines lie on each other.",
            action="Green below blue: do not hand over.",
            runbook="rollback-triggers",
        ),
        unit=MESSAGES_PER_SECOND,
    ),
    lines(
        "Produced by build",
        by_build(of_process(f"rate(kafka_messages_produced_total{ANY_CAPTURE}[5m])")),
        told=Told(
            "Only the writer produces. In a hand-over one line takes over from the other.",
            action="Both above 0 for longer than the 5 minutes of the window: look at who writes.",
            runbook="rollback-triggers",
        ),
        unit=MESSAGES_PER_SECOND,
    ),
    lines(
        "p99 latency by build",
        by_build(
            "histogram_quantile(0.99, sum by (job, instance, le) "
            f"(rate(binance_message_latency_seconds_bucket{ANY_CAPTURE}[5m])))"
        ),
        told=Told(
            "From the socket to the committed transaction. A standby has none.",
            action="Green clearly above what blue had: take it back.",
            runbook="rollback-triggers",
        ),
        unit=SECONDS,
        limits={0.5: RED},
    ),
    lines(
        "Unusable messages by build",
        by_build(of_process(f"rate(binance_message_errors_total{ANY_CAPTURE}[5m])")),
        told=Told(
            "Both hear the same messages.",
            action="Green above blue: its decoder is at fault. Take it back.",
            runbook="rollback-triggers",
        ),
        unit=PER_SECOND,
    ),
    lines(
        "Memory by build",
        by_build(f"process_memory_rss_bytes{ANY_CAPTURE}"),
        told=Told(
            "Resident memory of the captures.",
            action="100 MB more than a day ago is a rollback trigger.",
            runbook="rollback-triggers",
        ),
        unit=BYTES,
    ),
    lines(
        "Contradictions by build",
        by_build(f"k2_promise_broken{ANY_CAPTURE}"),
        told=Told(
            "What a service finds wrong in its own account. Must be 0.",
            action="Green above 0: take it back, then `k2 verify`.",
            runbook="rollback-triggers",
        ),
        unit=NONE,
        limits={1: RED},
    ),
)


def dashboard() -> Dashboard:
    """Build it."""
    one = board(
        uid="k2-binance-releases",
        title="Binance Releases and Error Budget",
        description="What is left of the error budget, and blue and green side by side.",
        variables=[],
    )
    return fill(one, {"Error budget": BUDGET, "Blue and green": SIDE_BY_SIDE})
