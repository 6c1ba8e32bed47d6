"""The series with labels of this process's own, made at its start.

Rules and dashboards find them, at 0, before anything happens. Those whose labels are the same in
every process are made with their families.
"""

from collections.abc import Iterable

from k2.observability import metrics


def begin_capture(*, legs: str, topic: str, symbols: Iterable[str], shards: int) -> None:
    """Make those of a capture."""
    for leg in legs:
        metrics.connection_lifetime.labels(leg)
        metrics.leg_first_copies.labels(leg)
        metrics.leg_lag.labels(leg)
        for reason in metrics.ROTATION_REASONS:
            metrics.rotations.labels(reason, leg)
    metrics.produced.labels(metrics.EXCHANGE, topic)
    metrics.produce_duration.labels(metrics.EXCHANGE, topic)
    for failure in metrics.TRANSACTION_FAILURES:
        metrics.produce_errors.labels(metrics.EXCHANGE, topic, failure)
        metrics.produce_retries.labels(metrics.EXCHANGE, topic, failure)
        metrics.produce_retries_exceeded.labels(metrics.EXCHANGE, topic, failure)
    for shard in range(shards):
        metrics.shard_writer.labels(str(shard))
        metrics.takeover_seconds.labels(str(shard))
        for reason in metrics.TAKEOVER_REASONS:
            metrics.takeovers.labels(str(shard), reason)
    for symbol in symbols:
        begin_symbol(symbol)
    metrics.serializer_cache_size.labels(metrics.PRODUCER)
    metrics.serializer_cache_evictions.labels(metrics.PRODUCER)


def begin_symbol(symbol: str) -> None:
    """Make those of one symbol, also of one that comes later."""
    for counter in (
        *(metrics.messages_received, metrics.holes_healed, metrics.healed, metrics.let_go),
        *(metrics.ids_declared, metrics.repaired, metrics.backfilled, metrics.fill_breaks),
    ):
        counter.labels(symbol)
    for outcome in metrics.COMPARISONS:
        metrics.compared.labels(symbol, outcome)
    for gauge in (metrics.holes_open, metrics.symbol_silent):
        gauge.labels(symbol)
    for reason in metrics.GAP_CLASSES:
        metrics.gaps_declared.labels(symbol, reason)
    for severity in metrics.SEVERITIES:
        metrics.sequence_gaps.labels(metrics.EXCHANGE, symbol, severity)


def begin_archive(*, tables: Iterable[str], topics: Iterable[str], shards: int, group: str) -> None:
    """Make those of an archive.

    Args:
        tables: Where it writes.
        topics: What it reads.
        shards: Partitions of each, as far as the settings know before Kafka is asked.
        group: Its consumer group.
    """
    for topic in topics:
        for shard in range(shards):
            metrics.consumer_lag.labels(topic, str(shard), group)
            metrics.consumer_lag_seconds.labels(topic, str(shard), group)
    for table in tables:
        metrics.rows_written.labels(table)
        metrics.transaction_rows.labels(table)
        metrics.batch_size.labels(table)
        metrics.snapshot_count.labels(table)
        metrics.table_commit_seconds.labels(table, "append")
        metrics.table_commit_failures.labels(table, "retry")
        metrics.table_write_errors.labels(table, "serialize")
        metrics.last_commit_timestamp.labels(table)
    metrics.serializer_cache_size.labels(metrics.CONSUMER)
    metrics.serializer_cache_evictions.labels(metrics.CONSUMER)
