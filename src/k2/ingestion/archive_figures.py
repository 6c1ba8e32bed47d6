"""What the archive counts of its own work, for its metrics page."""

import time
from bisect import insort
from collections.abc import Iterable

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import structlog

from k2.lake.commit_plan import Source
from k2.lake.writer import Landed, TableWriter
from k2.market import IdRange
from k2.observability import metrics
from k2.observability.families import Spread
from k2.tape.coverage import Coverage
from k2.tape.ranges import without

_STEP_NS = 10**7
"""Ages are counted in steps of 10 ms: hundreds of thousands of rows have a few hundred of them."""

_log = structlog.get_logger()


class RecordAccount(msgspec.Struct):
    """What became of every record read of a topic, since this process began."""

    read: int = 0
    """What Kafka gave."""
    rows: int = 0
    dead_letters: int = 0
    repeated: int = 0
    """Of ids the table held already: left out."""

    def unaccounted(self, *, waiting: int) -> int:
        """Return how many came to nothing, or to more than one thing.

        Args:
            waiting: Records that are read and in no table yet.
        """
        return abs(self.read - self.rows - self.dead_letters - self.repeated - waiting)


class ArchiveFigures:
    """Counts one topic's way into a table. Called by the archive's thread, read by a scrape."""

    def __init__(
        self,
        writer: TableWriter,
        declared: "Declared",
        *,
        topic: str,
        group: str,
        source: Source = Source.MAIN,
    ) -> None:
        """Make this topic's series; ``declared`` is shared by all topics of an archive."""
        self._writer = writer
        self._declared = declared
        self._live = source is Source.MAIN
        self._oldest_ms: dict[int, int | None] = {}
        self._topic = topic
        self._group = group
        self._show_table()

    def waiting(self, records: int) -> None:
        """So many records are read and in no table yet."""
        metrics.batch_size.labels(self._writer.name).set(records)

    def accounted(self, account: RecordAccount, *, waiting: int) -> None:
        """Judge the account of this topic's records; what it lacks breaks the promise."""
        count, known = account.unaccounted(waiting=waiting), self._declared.unaccounted
        if count == known.get(self._topic, 0):
            return
        known[self._topic] = count
        what = "records read are neither rows, dead letters, repeated nor waiting"
        _log.error("promise_broken", topic=self._topic, what=what, count=count)
        self._show_promise()

    def lag(self, partition: int, *, behind: int, oldest_ms: int | None) -> None:
        """Show how far the table is behind the end of a partition.

        Args:
            partition: Of this topic.
            behind: Offsets between what the table holds and the partition's end.
            oldest_ms: Timestamp of its oldest record read and not in the table, unix ms.
        """
        metrics.consumer_lag.labels(self._topic, str(partition), self._group).set(behind)
        self._oldest_ms[partition] = oldest_ms
        self.show_age()

    def show_age(self) -> None:
        """Show how old that record is by now: it ages while a table commit hangs, too."""
        now_s = time.time()
        for partition, oldest_ms in list(self._oldest_ms.items()):
            age_s = 0.0 if oldest_ms is None else max(0.0, now_s - oldest_ms / 1000)
            labels = (self._topic, str(partition), self._group)
            metrics.consumer_lag_seconds.labels(*labels).set(age_s)

    def landed(self, landed: Landed, *, took_s: float, produced_ms: Iterable[int]) -> None:
        """Count a commit that is in the table now; ``produced_ms`` are its records' timestamps."""
        name, now_s = self._writer.name, time.time()
        metrics.rows_written.labels(name).inc(landed.rows)
        metrics.table_commit_seconds.labels(name, "append").observe(took_s)
        if landed.rows:  # an end without rows is no batch
            metrics.transaction_rows.labels(name).observe(landed.rows)
        metrics.last_commit_timestamp.labels(name).set(now_s)
        for bad in landed.decoded.undecodable:
            metrics.message_errors.labels(bad.error_type).inc()
            metrics.table_write_errors.labels(name, bad.error_type).inc()
        if not landed.rereads:
            metrics.topic_duplicates.inc(len(landed.decoded.repeated))
        rows = landed.decoded.rows
        if "recv_ts_ns" not in rows.column_names:
            self._declared.add(rows)
        elif self._live:
            self._declared.reached(rows)
            now_ns = time.time_ns()
            live = rows.filter(pc.equal(rows.column("origin"), "STREAM"))
            received_ns = live.column("recv_ts_ns")
            produced_ns = pc.multiply(pa.array(produced_ms, pa.int64()), 10**6)
            _observe(metrics.lake_freshness.labels(), pc.subtract(now_ns, received_ns))
            _observe(metrics.commit_freshness.labels(), pc.subtract(now_ns, produced_ns))
        self._show_table()

    def _show_table(self) -> None:
        metrics.snapshot_count.labels(self._writer.name).set(self._writer.snapshots)
        coverage = self._writer.state.coverage
        for symbol in coverage.symbols():
            metrics.lake_next_id.labels(symbol).set(coverage.ranges(symbol)[-1].last_id + 1)
        if coverage.symbols():
            self._declared.lacked = self._declared.lacking(coverage)
        self._show_promise()

    def _show_promise(self) -> None:
        twice = metrics.topic_duplicates.labels().value
        unaccounted = sum(self._declared.unaccounted.values())
        metrics.promise_broken.set(twice + self._declared.lacked + unaccounted)


class Declared:
    """Which ids gap records cover, as the archive has read them, and what nothing accounts for."""

    def __init__(self, rows: pa.Table | None = None) -> None:
        """Begin with the rows of the table of gaps."""
        self._ranges: dict[str, list[IdRange]] = {}
        self._reached: dict[str, int] = {}
        """Symbol to the highest id that came from its tape since this process began."""
        self.lacked = 0
        """Ids that were lacking when the table was last looked at."""
        self.unaccounted: dict[str, int] = {}
        """Topic to how many of its records nothing accounts for."""
        if rows is not None:
            self.add(rows)

    def add(self, rows: pa.Table) -> None:
        """Take in more rows of that table."""
        for row in rows.to_pylist():
            ids = self._ranges.setdefault(row["symbol"], [])
            insort(ids, IdRange(row["first_id"], row["last_id"]), key=lambda one: one.first_id)

    def reached(self, rows: pa.Table) -> None:
        """Take in rows of the tapes themselves, which are in order."""
        newest = rows.group_by("symbol").aggregate([("source_sequence", "max")])
        for row in newest.to_pylist():
            self._reached[row["symbol"]] = row["source_sequence_max"]

    def lacking(self, coverage: Coverage) -> int:
        """Return how many ids neither a row nor a gap record covers.

        Only below what the tape itself has reached: repairs come by a topic of their own, so while
        the archive catches up theirs are in the table before the trades around them.
        """
        return sum(
            len(ids)
            for symbol, reached in self._reached.items()
            for ids in without(
                [hole for hole in coverage.holes(symbol) if hole.last_id < reached],
                self._ranges.get(symbol, []),
            )
        )


def _observe(spread: Spread, ages_ns: pa.Array) -> None:
    for one in pc.value_counts(pc.divide(ages_ns, _STEP_NS)).to_pylist():
        spread.observe(one["values"] * _STEP_NS / 10**9, one["counts"])
