"""One Kafka topic's way into an Iceberg table, each record's row once.

It starts where the table says it ends, never where the consumer group says.
"""

import base64
import time
from typing import Any

import structlog
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

from k2.errors import RetryError, StopError
from k2.ingestion.archive_figures import ArchiveFigures, RecordAccount
from k2.ingestion.reading_trouble import ReadingTrouble
from k2.kafka.dead_letters import DeadLetters
from k2.lake.commit_plan import Source
from k2.lake.writer import Landed, TableWriter
from k2.observability import metrics
from k2.settings import Settings

CONSUMER_GROUP = "k2-iceberg-writer-crypto-v2"
RECORDS_PER_POLL = 10_000
HELD_FLUSHES_MAX = 2

QUIET_COMMIT_AGE_S = 300.0
"""How long nothing of a topic is committed before the end it was read to is, without rows."""

_log = structlog.get_logger()


class TopicArchive:
    """One topic on its way into a table; blocking, one thread."""

    def __init__(
        self,
        settings: Settings,
        topic: str,
        writer: TableWriter,
        *,
        figures: ArchiveFigures,
        dead_letters: DeadLetters,
        partitions: int,
        source: Source = Source.MAIN,
        torn_from_rows: int = 0,
    ) -> None:
        """Start reading where the table says this source ends.

        A table commit holds Kafka transactions of up to ``torn_from_rows`` records whole, or not at
        all; longer ones are cut anywhere.
        """
        self._settings = settings
        self.topic = topic
        self._writer = writer
        self._source = source
        self._torn_from_rows = torn_from_rows
        self._dead_letters = dead_letters
        self._figures = figures
        self._values: list[bytes | None] = []
        self._produced_ms: list[int] = []
        """When each of them was produced, as Kafka says: unix time in ms."""
        self._oldest_ms: dict[int, int] = {}
        """By partition, when the first record of the batch was produced."""
        self._account = RecordAccount()
        self._bytes = 0
        self._flushed_at_s = float("-inf")
        self._trouble = ReadingTrouble(topic)
        self._partitions = range(partitions)
        self._next: dict[int, int] = {}
        """By partition, the offset that the next table commit names."""
        self._ends: dict[int, int] = {}
        """By partition, the end it was last read to."""
        self._open: dict[int, list[tuple[bytes | None, int]]] = {}
        """By partition, records whose transaction may have others behind them; of no batch yet."""
        self._read: dict[int, int] = {}
        """By partition, the offset behind the last record read; where reading begins before one."""
        self._consumer = Consumer(
            settings.kafka.client(
                {
                    "group.id": CONSUMER_GROUP,
                    "isolation.level": "read_committed",
                    "enable.auto.commit": False,
                    "enable.partition.eof": True,
                    # Records the table lacks that Kafka no longer has are a loss to be seen.
                    "auto.offset.reset": "error",
                    "fetch.queue.backoff.ms": 1,
                    "fetch.wait.max.ms": 100,
                    "log_level": 2,  # what goes wrong comes as an event, see _judge
                }
            )
        )
        offsets = writer.offsets(source)
        starts = [
            TopicPartition(topic, partition, offsets.get(partition, 0))
            for partition in range(partitions)
        ]
        places = [
            s if s.offset else TopicPartition(topic, s.partition, OFFSET_BEGINNING) for s in starts
        ]
        self._read = {place.partition: place.offset for place in places}
        self._consumer.assign(places)
        _log.info("archive_begins", topic=topic, offsets={s.partition: s.offset for s in starts})

    @property
    def unread(self) -> str:
        """Why Kafka does not give the topic's records out; nothing when it does."""
        return self._trouble.reason

    @property
    def due(self) -> bool:
        """Whether the batch is old, long or large enough for a table commit.

        After a quiet time the first records go at once; in a steady flow one table commit follows
        the other at the flush age, and no record is older than it when its commit begins.
        """
        age_s = time.monotonic() - self._flushed_at_s
        if not self._values:
            return age_s >= QUIET_COMMIT_AGE_S and self._is_ahead
        return (
            age_s >= self._settings.flush_age_s
            or len(self._values) >= self._settings.flush_rows
            or self._bytes >= self._settings.flush_bytes
        )

    def poll(self, timeout_s: float) -> int:
        """Take what Kafka has, waiting so long; nothing while the lake cannot keep up.

        Returns how many records came.
        """
        if len(self._values) >= HELD_FLUSHES_MAX * self._settings.flush_rows:
            self._show()  # its seconds go on
            return 0
        self._trouble.ask_again(self._consumer, self._read)
        try:
            messages = self._consumer.consume(RECORDS_PER_POLL, timeout_s)
        except KafkaException as exc:
            raise StopError(f"Kafka cannot read {self.topic}: {exc.args[0].str()}") from exc
        taken = 0
        for message in messages:
            partition = message.partition() or 0
            if (problem := message.error()) is None:
                self._trouble.read(partition)
                value, produced_ms = message.value(), message.timestamp()[1]
                self._take(partition, message.offset() or 0, value, produced_ms)
                taken += 1
            elif problem.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - its own name
                self._trouble.read(partition)
                self._reach_end(partition, message.offset() or 0)
            else:
                self._judge(problem, topic=message.topic(), partition=message.partition() or 0)
        self._account.read += taken
        self._show()
        return taken

    def flush(self) -> bool:
        """Commit the batch to the table; where nothing happened keep it for the next turn.

        Returns whether the batch is in the table (or there was none).

        Raises:
            ReconcileError: If nobody can say what became of the commit; the next start looks.
        """
        return self._commit() if self._values or self.due else True

    def finish(self) -> bool:
        """Commit the batch as the last one, and the end that was read to even without one.

        The absence that follows may be longer than Kafka keeps what is before that end.
        """
        return self._commit() if self._values or self._is_ahead else True

    @property
    def _is_ahead(self) -> bool:
        """Whether there is an offset to commit; a table that holds nothing needs none."""
        return bool(self._next) and self._writer.snapshots > 0

    def _commit(self) -> bool:
        began_s = time.monotonic()
        try:
            landed = self._writer.write(self._values, offsets=self._next, source=self._source)
        except RetryError as exc:
            metrics.table_commit_failures.labels(self._writer.name, "retry").inc()
            _log.warning("table_commit_waits", table=self._writer.name, reason=str(exc))
            time.sleep(0.5)
            return False
        took_s = time.monotonic() - began_s
        self._flushed_at_s = began_s
        self._report(landed, took_s)
        self._values, self._produced_ms, self._bytes, self._next = [], [], 0, {}
        self._oldest_ms = {}
        self._show()
        return True

    def show_age(self) -> None:
        """Show how old the oldest record is that is read and not in the table."""
        self._figures.show_age()

    def close(self) -> None:
        """Let go of Kafka."""
        self._consumer.close()

    def _take(self, partition: int, offset: int, value: bytes | None, produced_ms: int) -> None:
        if offset != self._read.get(partition):
            # A transaction's records follow one another, and its end takes an offset of its own.
            self._close_transaction(partition)
        records = self._open.setdefault(partition, [])
        records.append((value, produced_ms))
        self._read[partition] = offset + 1
        if len(records) >= self._torn_from_rows:
            self._close_transaction(partition)

    def _reach_end(self, partition: int, offset: int) -> None:
        """Take note that all that can be read before this offset was read.

        What can be read is whole transactions. Behind the last record are their ends, and records
        that were aborted: when Kafka forgets those, a table that stops before them seems to have
        lost something.
        """
        self._close_transaction(partition)
        self._ends[partition] = offset
        in_table = self._writer.offsets(self._source).get(partition, 0)
        if offset > self._next.get(partition, in_table):
            self._next[partition] = offset

    def _close_transaction(self, partition: int) -> None:
        """Put into the batch what was read of a partition; nothing that belongs to it will come."""
        if records := self._open.pop(partition, None):
            self._oldest_ms.setdefault(partition, records[0][1])
            for value, produced_ms in records:
                self._values.append(value)
                self._produced_ms.append(produced_ms)
                self._bytes += len(value or b"")
            self._next[partition] = self._read[partition]

    def _report(self, landed: Landed, took_s: float) -> None:
        self._figures.landed(landed, took_s=took_s, produced_ms=self._produced_ms)
        for bad in landed.decoded.undecodable:
            _log.warning("record_not_archived", topic=self.topic, reason=bad.error)
            self._dead_letters.write(
                original=_readable(bad.value),
                error=bad.error,
                error_type=bad.error_type,
                symbol=None,
                topic=self.topic,
            )
            self._account.dead_letters += 1
        self._account.rows += landed.rows
        self._account.repeated += len(landed.decoded.repeated)
        if landed.decoded.repeated and landed.rereads:
            _log.info("records_already_held", topic=self.topic, count=len(landed.decoded.repeated))
        elif landed.decoded.repeated:
            _log.error(
                "promise_broken",
                topic=self.topic,
                what="the topic holds ids the table already has; their rows were left out",
                count=len(landed.decoded.repeated),
                first=landed.decoded.repeated[0],
            )
        # For lag dashboards only: the table's own offsets are what the next start reads.
        offsets = [TopicPartition(self.topic, p, offset) for p, offset in self._next.items()]
        try:
            self._consumer.commit(offsets=offsets, asynchronous=True)
        except KafkaException as exc:
            _log.debug("offset_commit_skipped", reason=exc.args[0].str())

    def _show(self) -> None:
        """Show how far the table is behind, and judge the records' account; costs no request."""
        self._figures.waiting(len(self._values))
        unfinished = sum(len(records) for records in self._open.values())
        self._figures.accounted(self._account, waiting=len(self._values) + unfinished)
        in_table = self._writer.offsets(self._source)
        for partition in self._partitions:
            _, end = self._consumer.get_watermark_offsets(
                TopicPartition(self.topic, partition), cached=True
            )
            held, oldest_ms = in_table.get(partition, 0), self._oldest(partition)
            if oldest_ms is None:  # nothing waits: the table holds all up to where reading ended
                held = max(held, self._ends.get(partition, 0))
            self._figures.lag(partition, behind=max(0, end - held), oldest_ms=oldest_ms)

    def _oldest(self, partition: int) -> int | None:
        """Return when a partition's oldest record was produced that is in no table yet."""
        if partition in self._oldest_ms:
            return self._oldest_ms[partition]
        records = self._open.get(partition)
        return records[0][1] if records else None

    def _judge(self, problem: KafkaError, *, topic: str | None, partition: int) -> None:
        # The library's names for its own codes start with an underscore.
        if problem.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):  # noqa: SLF001
            raise StopError(
                f"Kafka no longer has the records of {self.topic} that follow the table: "
                f"{problem.str()}. Retention was shorter than the archive's absence. Start it "
                "with `k2 archive --from-first`; what is missing then shows in `k2 verify`"
            )
        if problem.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            raise StopError(f"topic {self.topic} was deleted while it was being archived")
        self._trouble.met(problem, topic=topic, partition=partition)


def _readable(value: bytes) -> dict[str, Any]:
    try:
        return {"_raw": value.decode("utf-8")}
    except UnicodeDecodeError:
        text = value.decode("utf-8", errors="replace")
        return {"_raw": text, "_raw_base64": base64.b64encode(value).decode()}
