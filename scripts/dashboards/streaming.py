"""The dashboard for whoever is on call for ``k2 stream``: from "is it well" down to its causes."""

from grafana_foundation_sdk.builders.dashboard import Dashboard
from scripts.dashboards import connections, process, tape
from scripts.dashboards.frame import board, choice, fill
from scripts.dashboards.panels import GREEN, RED, YELLOW, Meaning, Query, Told, lines, number
from scripts.dashboards.selectors import CAPTURE, OF_SYMBOLS, TRADES_TOPIC
from scripts.dashboards.units import MESSAGES_PER_SECOND, NONE, PER_SECOND, SECONDS

QUANTILES = ("0.50", "0.95", "0.99")

WELL = (
    number(
        "Binance Connection State",
        Query(f"binance_connection_state{CAPTURE}", legend="{{instance}}"),
        told=Told(
            "1 while at least one of an instance's connections to Binance is live.",
            action="DISCONNECTED for longer than a rotation: `k2 doctor ws` says which step fails.",
            runbook="disconnected",
        ),
        unit=NONE,
        meanings={1: Meaning("CONNECTED", color=GREEN), 0: Meaning("DISCONNECTED", color=RED)},
    ),
    number(
        "Newest trade is this old",
        Query(
            f"time() - (binance_last_message_timestamp_seconds{CAPTURE} > 0)",
            legend="{{instance}}",
        ),
        told=Told(
            "Since the last trade of any symbol was received: up to 15 s are the scrape interval.",
            action="From 30 s on it costs error budget. If it is connected, see `k2 doctor ws`.",
            runbook="no-messages",
        ),
        unit=SECONDS,
        limits={20: YELLOW, 30: RED},
    ),
    number(
        "Promise",
        Query(f"max(k2_promise_broken{CAPTURE})", legend="contradictions"),
        told=Told(
            "Contradictions the service found in its own account of every trade. Must be 0.",
            action="Run `k2 verify` before any restart: a trade was lost, doubled or miscounted.",
            runbook="promise-broken",
        ),
        unit=NONE,
        meanings={0: Meaning("KEPT", color=GREEN)},
        limits={1: RED},
    ),
    number(
        "Writers",
        Query(f"sum by (shard) (k2_shard_writer{CAPTURE})", legend="shard {{shard}}"),
        told=Told(
            "How many instances say that they write the shard. 1 is right; 2 for a moment in a "
            "hand-over (only one of them can commit).",
            action="0 for a minute: nobody writes. See the log of each instance for `lease`.",
            runbook="no-writer",
        ),
        unit=NONE,
        meanings={0: Meaning("NONE", color=RED), 1: Meaning("ONE", color=GREEN)},
        limits={2: YELLOW},
    ),
    number(
        "Symbols with a hole",
        Query(f"sum(k2_holes_open{CAPTURE})", legend="symbols"),
        told=Told(
            "Symbols that wait for missing ids: their later trades are held until REST has these.",
            action="It heals in seconds. If not, see REST below and `k2 top`.",
            runbook="gaps-and-holes",
        ),
        unit=NONE,
        limits={1: YELLOW},
    ),
    number(
        "Declared ids still looked for",
        Query(f"sum(k2_gap_ids_open{CAPTURE})", legend="ids"),
        told=Told(
            "Ids that no source had when they were declared missing. 0 is usual.",
            action="`k2 gaps` lists them; they are repaired as soon as REST has them.",
            runbook="gaps-and-holes",
        ),
        unit=NONE,
        limits={1: RED},
    ),
)

TRADES = (
    lines(
        "Messages Received (msg/sec)",
        Query(
            f"sum by (instance) (rate(binance_messages_received_total{CAPTURE}[5m]))",
            legend="Messages/sec {{instance}}",
        ),
        told=Told(
            "Trades received, each id once, however many connections brought it.",
            action="Falls to 0 with all symbols: connection. With one symbol: its market, or its "
            "stream.",
            runbook="no-messages",
        ),
        unit=MESSAGES_PER_SECOND,
    ),
    lines(
        "Message Processing Latency",
        *(
            Query(
                f"histogram_quantile({q}, sum by (instance, le) "
                f"(rate(binance_message_latency_seconds_bucket{CAPTURE}[5m])))",
                legend=f"p{q[2:]} {{{{instance}}}}",
            )
            for q in QUANTILES
        ),
        told=Told(
            "From the socket to the committed Kafka transaction, as its writer sees it. p99 below "
            "0.1 s is usual.",
            action="Compare with the commit time: if that is high too, Kafka is slow; if not, we "
            "are.",
            runbook="high-latency",
        ),
        unit=SECONDS,
        limits={0.5: RED},
    ),
    lines(
        "Produced and received",
        Query(
            f"sum by (instance) (rate(binance_messages_received_total{CAPTURE}[5m]))",
            legend="received {{instance}}",
        ),
        Query(
            f"sum by (instance) (rate(kafka_messages_produced_total{TRADES_TOPIC}[5m]))",
            legend="produced {{instance}}",
        ),
        told=Told(
            "Trades in, and records whose transaction committed. The writer's two lines lie on "
            "each other; a standby produces none. Produced is higher while a hole heals.",
            action="Produced below received for minutes: trades wait. See commit time and errors.",
            runbook="kafka-produce-failures",
        ),
        unit=MESSAGES_PER_SECOND,
    ),
    lines(
        "Messages received by symbol",
        Query(
            f"sum by (symbol) (rate(binance_messages_received_total{OF_SYMBOLS}[5m]))",
            legend="{{symbol}}",
        ),
        told=Told(
            "Trades by symbol, all shown instances together.",
            action="One line at 0 among busy ones: is that market halted? If not, `k2 doctor ws`.",
            runbook="no-messages",
        ),
        unit=MESSAGES_PER_SECOND,
    ),
    lines(
        "Kafka transaction time",
        *(
            Query(
                f"histogram_quantile({q}, sum by (instance, le) "
                f"(rate(k2_kafka_commit_seconds_bucket{CAPTURE}[5m])))",
                legend=f"p{q[2:]} {{{{instance}}}}",
            )
            for q in QUANTILES
        ),
        told=Told(
            "Begin to commit of one transaction. Milliseconds on a healthy broker.",
            action="Seconds: look at the broker's disk and at its in-sync replicas.",
            runbook="kafka-produce-failures",
        ),
        unit=SECONDS,
    ),
    lines(
        "Produce errors and retries",
        Query(
            f"sum by (instance, error_type) (rate(kafka_produce_errors_total{CAPTURE}[5m]))",
            legend="{{error_type}} {{instance}}",
        ),
        Query(
            f"sum by (instance) (rate(kafka_produce_max_retries_exceeded_total{CAPTURE}[5m]))",
            legend="outcome unknown {{instance}}",
        ),
        told=Told(
            "Transactions that did not commit at once, by why. They cost time, not trades. "
            "`fenced` once is a hand-over.",
            action="Above 0.1 a second, or any `outcome unknown` that goes on: Kafka is in "
            "trouble.",
            runbook="kafka-produce-failures",
        ),
        unit=PER_SECOND,
        limits={0.1: RED},
    ),
)


def dashboard() -> Dashboard:
    """Build it."""
    one = board(
        uid="k2-binance-streaming",
        title="Binance Streaming",
        description="Capture of Binance trades: is it well, and if not, which hop is not.",
        variables=[
            choice("instance", of_metric="binance_connection_state"),
            choice("symbol", of_metric="binance_messages_received_total"),
        ],
    )
    return fill(
        one,
        {
            "Is it well": WELL,
            "Trades in, records out": TRADES,
            "Connections": connections.PANELS,
            "Is the record whole": tape.PANELS,
            "The process": process.of(CAPTURE),
        },
    )
