"""The metrics, in one table, with the names of the operations contract (section 1.1).

Here are the ones the main job needs to be watched; the remaining rows of the contract come with
the issue that makes the service operable.
"""

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, Counter, Gauge, Histogram, generate_latest

from k2.observability.http import serve

EXCHANGE = "BINANCE"

connection_state = Gauge("binance_connection_state", "1 while connected, else 0")
connection_errors = Counter(
    "binance_connection_errors", "Connects that failed and protocol breaches", ["error_type"]
)
reconnections = Counter("binance_reconnections", "Unplanned reconnects", ["reason"])
rotations = Counter(
    "binance_connection_rotations", "Connections replaced, make before break", ["reason", "leg"]
)
connection_lifetime = Gauge(
    "binance_connection_lifetime_seconds", "Age of the leg's connection, 0 without one", ["leg"]
)
leg_first_copies = Counter(
    "k2_leg_first_copies", "Trades of which this leg brought the first copy", ["leg"]
)
leg_lag = Gauge("k2_leg_lag_seconds", "How far the leg's copies trail the first ones", ["leg"])
messages_received = Counter(
    "binance_messages_received", "Trades received, first copies", ["symbol"]
)
message_errors = Counter(
    "binance_message_errors", "Messages that could not be used", ["error_type"]
)
message_latency = Histogram(
    "binance_message_latency_seconds",
    "Socket receive to Kafka transaction committed",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
last_message_timestamp = Gauge(
    "binance_last_message_timestamp_seconds", "Unix time of the last trade received"
)
server_pings = Counter("binance_server_pings", "PING frames of the server, each answered")
dead_letters = Counter("binance_dlq_records", "Dead letters written", ["error_type"])
dead_letter_failures = Counter("binance_dlq_write_errors", "Dead letters that could not be written")
duplicates = Counter("duplicate_messages_detected", "Copies dropped before Kafka", ["exchange"])
produced = Counter(
    "kafka_messages_produced", "Records whose transaction committed", ["exchange", "topic"]
)
produce_errors = Counter(
    "kafka_produce_errors",
    "Transactions that did not commit at once",
    ["exchange", "topic", "error_type"],
)
transaction_seconds = Histogram(
    "k2_kafka_commit_seconds",
    "Begin to commit of one transaction",
    buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
shard_writer = Gauge("k2_shard_writer", "1 while this process writes the shard", ["shard"])
holes_open = Gauge("k2_holes_open", "1 while the symbol waits for missing ids", ["symbol"])
healed = Counter("k2_trades_healed", "Trades fetched by REST and written", ["symbol"])
let_go = Counter(
    "k2_trades_let_go",
    "Trades not kept because ring or hold was full; they come back by REST",
    ["symbol"],
)
gap_ids_open = Gauge(
    "k2_gap_ids_open", "Declared ids that are still looked for, of the shards written here"
)
takeovers = Counter("k2_takeovers", "Shards taken over by this process", ["shard"])
takeover_seconds = Histogram(
    "k2_takeover_pause_seconds",
    "From the lease to the first possible commit",
    ["shard"],
    buckets=(0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
gaps_declared = Counter("k2_gaps_declared", "Gap records written", ["symbol", "reason"])
repaired = Counter(
    "k2_trades_repaired", "Trades written after their ids had been declared missing", ["symbol"]
)
backfilled = Counter("k2_ids_backfilled", "Ids of the past written or declared", ["symbol"])
symbol_silent = Gauge("k2_symbol_silent", "1 while silent for longer than is usual", ["symbol"])
fill_breaks = Counter(
    "k2_fill_breaks", "Trades whose first fill does not follow the one before", ["symbol"]
)
compared = Counter(
    "k2_trades_compared", "Trades a standby compared with the writer's", ["symbol", "outcome"]
)
pending_trades = Gauge("binance_producer_queue_messages", "Trades waiting for their transaction")

rows_written = Counter("iceberg_rows_written", "Rows in landed table commits", ["table"])
table_commit_seconds = Histogram(
    "iceberg_write_duration_seconds",
    "Writing and committing one batch",
    ["table"],
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
table_commit_failures = Counter(
    "iceberg_commit_failures", "Table commits that did not land at once", ["table", "error_type"]
)


async def serve_metrics(port: int) -> web.AppRunner:
    """Serve ``/metrics`` on loopback.

    Raises:
        StopError: If the port is taken.
    """

    async def metrics(_request: web.Request) -> web.Response:
        return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    return await serve(
        port,
        "/metrics",
        metrics,
        variables="K2_METRICS_PORT (k2 stream) or K2_ARCHIVE_METRICS_PORT (k2 archive)",
    )
