"""Every metric, in one table, with the names of the operations contract (section 1.1).

``capture`` is what ``k2 stream`` exports, ``archive`` what ``k2 archive`` does; what both have is
in ``process``. A series whose labels are known beforehand is there, at 0, from the start.
"""

from k2.observability.families import Families

EXCHANGE = "BINANCE"
PRODUCER, CONSUMER = "producer", "consumer"
REST_BREAKER = "binance_rest"

BREAKER_CLOSED, BREAKER_OPEN, BREAKER_HALF_OPEN = 0, 1, 2

RECONNECT_REASONS = (
    "connection_closed",
    "websocket_error",
    "health_check_timeout",
    "pong_timeout",
    "server_shutdown",
    "unexpected_error",
)
CONNECT_FAILURES = ("dns", "refused", "timeout", "tls", "handshake", "protocol")
ROTATION_REASONS = ("scheduled_rotation", "manual_rotation")
ERROR_TYPES = ("parse", "invalid_field", "missing_field", "unexpected_type", "serialize", "void")
TRANSACTION_FAILURES = ("aborted", "fenced", "unknown", "timed_out")
TAKEOVER_REASONS = ("start", "succession", "rejoin")
FRAME_KINDS = ("trade", "control", "rejected", "retired")
GAP_CLASSES = ("missing", "rejected", "void")
COMPARISONS = ("equal", "different", "not_heard", "not_written")
SEVERITIES = ("low", "medium", "high")

_COMMIT_BOUNDS_S = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_ACK_BOUNDS_S = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
_TABLE_BOUNDS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_BATCH_BOUNDS_ROWS = (1, 10, 100, 1_000, 10_000, 100_000, 1_000_000)

process = Families()
build_info = process.gauge(
    "k2_build_info", "1; tells which build this is", "version", "revision", "color", "python"
)
memory_rss = process.gauge("process_memory_rss_bytes", "Resident memory")
memory_vms = process.gauge("process_memory_vms_bytes", "Virtual memory")
leak_score = process.gauge(
    "memory_leak_detection_score", "0 to 1: how steadily and how fast memory grows (over 0.8: leak)"
)
message_errors = process.counter(
    "binance_message_errors", "Messages that could not be used", "error_type"
)
dead_letters = process.counter("binance_dlq_records", "Dead letters written", "error_type")
dead_letter_failures = process.counter(
    "binance_dlq_write_errors", "Dead letters that could not be written"
)
dead_letters_not_sent = process.counter(
    "k2_dlq_not_sent", "Dead letters that Kafka did not take; they may be in the file"
)
serializer_cache_size = process.gauge(
    "serializer_cache_size", "Schemas kept ready to encode or decode with", "component_type"
)
serializer_cache_evictions = process.counter(
    "serializer_cache_evictions", "Schemas that had to make room for others", "component_type"
)
promise_broken = process.gauge(
    "k2_promise_broken", "Contradictions found in this process's own account: must be 0"
)

capture = Families(process)
connection_state = capture.gauge(
    "binance_connection_state", "1 while at least one leg is connected, else 0"
)
connection_errors = capture.counter(
    "binance_connection_errors", "Connects that failed and protocol breaches", "error_type"
)
reconnections = capture.counter("binance_reconnections", "Unplanned reconnects", "reason")
reconnect_delay = capture.gauge(
    "binance_reconnect_delay_seconds", "Longest wait before a leg's next attempt, 0 without one"
)
rotations = capture.counter(
    "binance_connection_rotations", "Connections replaced, make before break", "reason", "leg"
)
connection_lifetime = capture.gauge(
    "binance_connection_lifetime_seconds", "Age of the leg's connection, 0 without one", "leg"
)
leg_first_copies = capture.counter(
    "k2_leg_first_copies", "Trades of which this leg brought the first copy", "leg"
)
leg_lag = capture.gauge("k2_leg_lag_seconds", "How far its copies trail the first ones", "leg")
frames_in = capture.counter("k2_frames_received", "Text frames of all connections")
frames = capture.counter("k2_frames", "What those frames were", "kind")
messages_received = capture.counter(
    "binance_messages_received", "Trades received, first copies", "symbol"
)
message_latency = capture.histogram(
    "binance_message_latency_seconds",
    "Socket receive to Kafka transaction committed",
    bounds=(0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
exchange_lag = capture.histogram(
    "binance_exchange_lag_seconds",
    "Our clock at receipt less the exchange's at sending: below 0 where ours is behind; read it "
    "with k2_clock_offset_seconds",
    bounds=(-5, -1, -0.5, -0.1, -0.01, 0, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)
clock_offset = capture.gauge(
    "k2_clock_offset_seconds", "Our clock less the exchange's, as far as REST can tell"
)
clock_uncertainty = capture.gauge(
    "k2_clock_offset_uncertainty_seconds", "By how much that may be wrong: half of a round trip"
)
last_message_timestamp = capture.gauge(
    "binance_last_message_timestamp_seconds", "Unix time of the last trade received"
)
server_pings = capture.counter("binance_server_pings", "PING frames of the server, each answered")
last_server_ping = capture.gauge(
    "binance_last_server_ping_timestamp_seconds", "Unix time of the server's last PING"
)
last_pong = capture.gauge(
    "binance_last_pong_timestamp_seconds",
    "Unix time of the last heartbeat: the server's PING, or its PONG to ours",
)
pong_timeouts = capture.counter("binance_pong_timeouts", "Connections left for want of a PONG")
duplicates = capture.counter(
    "duplicate_messages_detected", "Copies dropped before Kafka", "exchange"
)
sequence_gaps = capture.counter(
    "sequence_gaps_detected",
    "Ranges of ids no source had in time; severity by their length",
    *("exchange", "symbol", "severity"),
)
circuit_breaker = capture.gauge(
    "circuit_breaker_state", "0 closed, 1 open (asked to stay away), 2 half open", "breaker_name"
)
produced = capture.counter(
    "kafka_messages_produced", "Records whose transaction committed", "exchange", "topic"
)
produce_errors = capture.counter(
    "kafka_produce_errors",
    "Transactions that did not commit at once",
    *("exchange", "topic", "error_type"),
)
produce_retries = capture.counter(
    "kafka_produce_retries",
    "Commits called again and batches written again",
    *("exchange", "topic", "error_type"),
)
produce_retries_exceeded = capture.counter(
    "kafka_produce_max_retries_exceeded",
    "Transactions whose outcome no retry could tell: the position was looked up",
    *("exchange", "topic", "error_type"),
)
produce_duration = capture.histogram(
    "kafka_produce_duration_seconds",
    "From handing a record to the library to its transaction's commit",
    *("exchange", "topic"),
    bounds=_ACK_BOUNDS_S,
)
transaction_seconds = capture.histogram(
    "k2_kafka_commit_seconds", "Begin to commit of one transaction", bounds=_COMMIT_BOUNDS_S
)
pending_trades = capture.gauge(
    "binance_producer_queue_messages", "Trades waiting for their transaction"
)
pending_bytes = capture.gauge(
    "binance_producer_queue_bytes", "About how large their records will be"
)
shutting_down = capture.gauge(
    "binance_shutdown_in_progress", "1 from the signal until the process has ended"
)
shard_writer = capture.gauge("k2_shard_writer", "1 while this process writes the shard", "shard")
takeovers = capture.counter("k2_takeovers", "Shards taken over by this process", "shard", "reason")
takeover_seconds = capture.histogram(
    "k2_takeover_pause_seconds",
    "From the last commit of the writer before (or the lease) to our first one",
    "shard",
    bounds=(0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
holes_open = capture.gauge("k2_holes_open", "1 while the symbol waits for missing ids", "symbol")
holes_healed = capture.counter(
    "k2_holes_healed", "Times a symbol's missing ids were all fetched", "symbol"
)
healed = capture.counter("k2_trades_healed", "Trades fetched by REST and written", "symbol")
hold_bytes = capture.gauge(
    "k2_hold_bytes", "About how much is held back behind holes, in memory and in the spill file"
)
let_go = capture.counter(
    "k2_trades_let_go",
    "Trades not kept because ring or hold was full; they come back by REST",
    "symbol",
)
gap_ids_open = capture.gauge(
    "k2_gap_ids_open", "Declared ids that are still looked for, of the shards written here"
)
gaps_declared = capture.counter("k2_gaps_declared", "Gap records written", "symbol", "reason")
ids_declared = capture.counter("k2_trades_declared", "Ids in those records", "symbol")
repaired = capture.counter(
    "k2_trades_repaired", "Trades written after their ids had been declared missing", "symbol"
)
backfilled = capture.counter("k2_ids_backfilled", "Ids of the past written or declared", "symbol")
symbol_silent = capture.gauge("k2_symbol_silent", "1 while silent for longer than usual", "symbol")
fill_breaks = capture.counter(
    "k2_fill_breaks", "Trades whose first fill does not follow the one before", "symbol"
)
next_id = capture.gauge("k2_next_id", "First id that is not on the symbol's tape yet", "symbol")
compared = capture.counter(
    "k2_trades_compared", "Trades a standby compared with the writer's", "symbol", "outcome"
)
offered = capture.counter("k2_trades_offered", "Trades put to a tape, from any source")
emitted = capture.counter("k2_trades_emitted", "Of those, the ones whose turn came")
copies = capture.counter("k2_trades_copies", "Of those, the ones already on the tape or held")
held = capture.gauge("k2_trades_held", "Of those, the ones that wait for missing ids")
dropped = capture.counter(
    "k2_trades_dropped", "Of those, the ones let go: no room, disputed, absurd, or declared"
)
queued = capture.counter("k2_items_queued", "Trades and declarations put into a ring")
committed = capture.counter("k2_items_committed", "Of those, committed by this process")
passed = capture.counter(
    "k2_items_passed", "Of those, left to another writer, or put to their tapes again"
)

archive = Families(process)
rows_written = archive.counter("iceberg_rows_written", "Rows in landed table commits", "table")
table_write_errors = archive.counter(
    "iceberg_write_errors", "Records that could not become a row", "table", "error_type"
)
table_commit_failures = archive.counter(
    "iceberg_commit_failures", "Table commits that did not land at once", "table", "error_type"
)
table_commit_seconds = archive.histogram(
    "iceberg_write_duration_seconds",
    "Writing and committing one batch",
    *("table", "operation"),
    bounds=_TABLE_BOUNDS_S,
)
transaction_rows = archive.histogram(
    "iceberg_transaction_rows", "Rows of one table commit", "table", bounds=_BATCH_BOUNDS_ROWS
)
batch_size = archive.gauge("iceberg_batch_size", "Records waiting for the next commit", "table")
snapshot_count = archive.gauge("iceberg_snapshot_count", "Snapshots the table keeps", "table")
consumer_lag = archive.gauge(
    "kafka_consumer_lag_messages",
    "Offsets between the table and the end of the topic",
    *("topic", "partition", "consumer_group"),
)
consumer_lag_seconds = archive.gauge(
    "kafka_consumer_lag_seconds",
    "Age of the oldest record that is read and not in the table",
    *("topic", "partition", "consumer_group"),
)
topic_duplicates = archive.counter(
    "k2_topic_duplicates", "Ids met in a topic that the table held already"
)
lake_freshness = archive.histogram(
    "k2_lake_freshness_seconds",
    "From a live trade's receipt to its row being queryable",
    bounds=(0.25, 0.5, 1, 1.5, 2, 2.5, 3, 4, 5, 7.5, 10, 30, 60, 300),
)
commit_freshness = archive.histogram(
    "k2_commit_to_queryable_seconds",
    "From a record's timestamp in Kafka to its row being queryable",
    bounds=(0.25, 0.5, 1, 1.5, 2, 2.5, 3, 4, 5, 7.5, 10, 30, 60, 300),
)
lake_next_id = archive.gauge("k2_lake_next_id", "First id above the table's newest", "symbol")
last_commit_timestamp = archive.gauge(
    "k2_lake_last_commit_timestamp_seconds", "Unix time of the last landed table commit", "table"
)


def _known_labels() -> None:
    """Make every series whose labels are known beforehand."""
    for reason in RECONNECT_REASONS:
        reconnections.labels(reason)
    for failure in CONNECT_FAILURES:
        connection_errors.labels(failure)
    for error_type in ERROR_TYPES:
        message_errors.labels(error_type)
        dead_letters.labels(error_type)
    for kind in FRAME_KINDS:
        frames.labels(kind)
    duplicates.labels(EXCHANGE)
    circuit_breaker.labels(REST_BREAKER)


_known_labels()


def severity(ids: int) -> str:
    """Return how bad a range of so many missing ids is, as ``SEVERITIES``."""
    return SEVERITIES[(ids >= 10) + (ids >= 1_000)]
