"""The dashboard for ``k2 archive``: from the topic to rows that can be queried."""

from grafana_foundation_sdk.builders.dashboard import Dashboard
from scripts.dashboards import process
from scripts.dashboards.frame import board, choice, fill
from scripts.dashboards.panels import GREEN, RED, YELLOW, Meaning, Query, Told, lines, number
from scripts.dashboards.selectors import ANY_CAPTURE, ARCHIVE
from scripts.dashboards.units import COUNT, NONE, PER_SECOND, ROWS_PER_SECOND, SECONDS

QUANTILES = ("0.50", "0.95", "0.99")

WELL = (
    number(
        "Archive answers",
        Query(f"up{ARCHIVE}", legend="{{instance}}"),
        told=Told(
            "Whether Prometheus can read the archive's metrics.",
            action="Down: start it again; it goes on where the table ends. Kafka keeps trades "
            "for 7 days.",
            runbook="process-down",
        ),
        unit=NONE,
        meanings={1: Meaning("UP", color=GREEN), 0: Meaning("DOWN", color=RED)},
    ),
    number(
        "Last table commit is this old",
        Query(f"time() - (k2_lake_last_commit_timestamp_seconds{ARCHIVE} > 0)", legend="{{table}}"),
        told=Told(
            "By table, since this process began. The table of trades commits every few seconds; "
            "those of gaps and repairs only when there is one.",
            action="Trades above a minute while trades are produced: see write errors.",
            runbook="archive-write-errors",
        ),
        unit=SECONDS,
    ),
    number(
        "Records behind the topic",
        Query(
            f"sum by (topic) (kafka_consumer_lag_messages{ARCHIVE})",
            legend="{{topic}}",
        ),
        told=Told(
            "Offsets between the table and the end of the topic.",
            action="Above 1 million it pages: what is older than 7 days leaves Kafka.",
            runbook="archive-lag",
        ),
        unit=COUNT,
        limits={100_000: YELLOW, 1_000_000: RED},
        width=8,
    ),
    number(
        "Promise",
        Query(f"max(k2_promise_broken{ARCHIVE})", legend="ids"),
        told=Told(
            "Ids doubled in the topic, or covered by neither a row nor a declared gap. Must be 0.",
            action="Run `k2 verify`: it names the ids.",
            runbook="promise-broken",
        ),
        unit=NONE,
        meanings={0: Meaning("KEPT", color=GREEN)},
        limits={1: RED},
    ),
    number(
        "Ids twice in the topic",
        Query(f"sum(k2_topic_duplicates_total{ARCHIVE})", legend="ids"),
        told=Told(
            "Ids met in the topic that the table held already, since the process began. Must be 0.",
            action="The table is right; other readers of the topic are not. Look for a second "
            "writer.",
            runbook="promise-broken",
        ),
        unit=NONE,
        limits={1: RED},
    ),
)

FRESH = (
    lines(
        "From receipt to queryable",
        *(
            Query(
                f"histogram_quantile({q}, sum by (le) "
                f"(rate(k2_lake_freshness_seconds_bucket{ARCHIVE}[5m])))",
                legend=f"p{q[2:]}",
            )
            for q in QUANTILES
        ),
        told=Told(
            "Of live trades: from our socket to a row anybody can query. Below 5 s is the budget.",
            action="High here and low beside: the capture is slow, not the archive.",
            runbook="archive-lag",
        ),
        unit=SECONDS,
        limits={5: RED},
    ),
    lines(
        "From Kafka to queryable",
        *(
            Query(
                f"histogram_quantile({q}, sum by (le) "
                f"(rate(k2_commit_to_queryable_seconds_bucket{ARCHIVE}[5m])))",
                legend=f"p{q[2:]}",
            )
            for q in QUANTILES
        ),
        told=Told(
            "From a record's timestamp in Kafka to its row being queryable: the archive's part.",
            action="High: see commit time and batch size.",
            runbook="archive-lag",
        ),
        unit=SECONDS,
    ),
    lines(
        "Age of the oldest record not in the table",
        Query(f"max by (topic) (kafka_consumer_lag_seconds{ARCHIVE})", legend="{{topic}}"),
        told=Told(
            "Of what was read and waits for its commit. About the flush age is usual.",
            action="Grows steadily: commits do not land.",
            runbook="archive-lag",
        ),
        unit=SECONDS,
    ),
    lines(
        "Consumer lag",
        Query(
            f"sum by (topic, partition) (kafka_consumer_lag_messages{ARCHIVE})",
            legend="{{topic}} {{partition}}",
        ),
        told=Told(
            "Offsets between the table and the end of each partition. It saws with the commits.",
            action="One partition grows: its shard is the largest. All grow: too slow for the "
            "load.",
            runbook="archive-lag",
        ),
        unit=COUNT,
    ),
    lines(
        "Ids not in the lake yet",
        Query(
            f"clamp_min(max by (symbol) (k2_next_id{ANY_CAPTURE}) "
            f"- max by (symbol) (k2_lake_next_id{ARCHIVE}), 0)",
            legend="{{symbol}}",
        ),
        told=Told(
            "By symbol, from the newest id on the tape to the newest in the table.",
            action="One symbol stays behind: see its dead letters and `k2 verify`.",
            runbook="archive-lag",
        ),
        unit=COUNT,
    ),
    lines(
        "Waiting for the next commit",
        Query(f"iceberg_batch_size{ARCHIVE}", legend="{{table}}"),
        told=Told(
            "Records read and in no table yet.",
            action="At its limit all the time: commits are too slow.",
            runbook="archive-write-errors",
        ),
        unit=COUNT,
    ),
)

TABLES = (
    lines(
        "Rows written",
        Query(
            f"sum by (table) (rate(iceberg_rows_written_total{ARCHIVE}[5m]))", legend="{{table}}"
        ),
        told=Told(
            "Rows in table commits that landed. For trades: as many as the capture produces.",
            action="0 while trades are produced: see write errors.",
            runbook="archive-lag",
        ),
        unit=ROWS_PER_SECOND,
    ),
    lines(
        "Table commits",
        Query(
            f"sum by (table) (rate(iceberg_write_duration_seconds_count{ARCHIVE}[5m]))",
            legend="{{table}}",
        ),
        told=Told(
            "Commits that landed. Each makes a snapshot; the archive expires old ones.",
            action="More than one a second: the flush age is too short for this catalog.",
            runbook="archive-lag",
        ),
        unit=PER_SECOND,
    ),
    lines(
        "Table commit time",
        *(
            Query(
                f"histogram_quantile({q}, sum by (table, le) "
                f"(rate(iceberg_write_duration_seconds_bucket{ARCHIVE}[5m]))) >= 0",
                legend=f"p{q[2:]} {{{{table}}}}",
            )
            for q in ("0.50", "0.99")
        ),
        told=Told(
            "Writing and committing one batch.",
            action="Grows from day to day: are snapshots expired (beside)? Suddenly: storage or "
            "catalog.",
            runbook="archive-write-errors",
        ),
        unit=SECONDS,
    ),
    lines(
        "Rows of a commit",
        Query(
            f"sum by (table) (rate(iceberg_transaction_rows_sum{ARCHIVE}[5m])) "
            f"/ (sum by (table) (rate(iceberg_transaction_rows_count{ARCHIVE}[5m])) > 0)",
            legend="{{table}}",
        ),
        told=Told(
            "On average. The load times the flush age, until the limit of rows is reached.",
            action="Very small ones make many small files: a longer flush age costs freshness.",
            runbook="archive-lag",
        ),
        unit=COUNT,
    ),
    lines(
        "Snapshots kept",
        Query(f"iceberg_snapshot_count{ARCHIVE}", legend="{{table}}"),
        told=Told(
            "Above 60 they are expired down to 20 to 50. Commit time grows with them.",
            action="Above 100: maintenance fails; the log says why.",
            runbook="archive-write-errors",
        ),
        unit=COUNT,
        limits={100: RED},
    ),
    lines(
        "Write errors",
        Query(
            f"sum by (table, error_type) (rate(iceberg_write_errors_total{ARCHIVE}[5m]))",
            legend="no row: {{error_type}} {{table}}",
        ),
        Query(
            f"sum by (table, error_type) (rate(iceberg_commit_failures_total{ARCHIVE}[5m]))",
            legend="not landed: {{error_type}} {{table}}",
        ),
        told=Told(
            "Records that could not become a row, and commits that did not land at once. Those are "
            "looked up and written again; nothing is lost.",
            action="For minutes: storage or catalog is away. Kafka keeps the trades for 7 days.",
            runbook="archive-write-errors",
        ),
        unit=PER_SECOND,
    ),
)


def dashboard() -> Dashboard:
    """Build it."""
    one = board(
        uid="k2-binance-archive",
        title="Binance Archive",
        description="From the Kafka topic to rows in the lake: how fresh, how far behind.",
        variables=[choice("instance", of_metric="iceberg_snapshot_count")],
    )
    return fill(
        one,
        {
            "Is it well": WELL,
            "How fresh is the lake": FRESH,
            "Tables": TABLES,
            "The process": process.of(ARCHIVE),
        },
    )
