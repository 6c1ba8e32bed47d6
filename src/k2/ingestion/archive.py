"""``k2 archive``: the archive service, Kafka to Iceberg, each record's row once.

It starts where the tables say they end, never where the consumer group says.
"""

import asyncio
import base64
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import structlog
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from cyclopts import App, Parameter

from k2 import __version__
from k2.errors import K2Error, RetryError, StopError
from k2.ingestion.service import read_settings
from k2.ingestion.supervision import ExitCode, UnavailableError, stop_on_signals, until_it_works
from k2.kafka.dead_letters import DeadLetters
from k2.kafka.encoding import SCHEMA_TEXT
from k2.kafka.registry import Registry
from k2.kafka.topics import TopicFacts, TopicNames, topic_facts
from k2.lake.decoding import GapDecoder, TradeDecoder
from k2.lake.tables import open_catalog
from k2.lake.writer import Landed, TableWriter
from k2.observability import metrics
from k2.observability.logging import configure_logging
from k2.settings import Settings

LOG_FILE = Path("logs/archive.log")
CONSUMER_GROUP = "k2-iceberg-writer-crypto-v2"
POLL_S = 0.1
RECORDS_PER_POLL = 10_000
HELD_FLUSHES_MAX = 2
DRAIN_DEADLINE_S = 3.0
QUIET_POLLS = 2
REMIND_EVERY_S = 30.0

_log = structlog.get_logger()

app = App(
    name="archive",
    version=__version__,
    help="Archive trades: Kafka topic to Iceberg table, each id once.",
    help_epilogue=(
        "Examples:\n\n"
        "  k2 archive\n\n"
        "  K2_LAKE_DIR=/data/lake k2 archive --kafka-bootstrap kafka:9092\n\n"
        "Exit codes: 0 clean, 1 failed, 2 configuration, 4 a dependency is absent and "
        "--fail-fast was given."
    ),
)


@app.default
def archive(
    *,
    kafka_bootstrap: str | None = None,
    schema_registry: str | None = None,
    log_level: str | None = None,
    from_first: Annotated[bool, Parameter(negative="")] = False,
    fail_fast: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Archive trades: Kafka topic to Iceberg table, each id once.

    Args:
        kafka_bootstrap: Kafka's host:port (KAFKA_BOOTSTRAP).
        schema_registry: The registry's address (SCHEMA_REGISTRY_URL).
        log_level: DEBUG, INFO, WARNING or ERROR (K2_LOG_LEVEL).
        from_first: Go on from the first record Kafka still has: after the topic was created
            again, or retention passed. Ids the table holds are not written twice; what was lost
            in between shows in `k2 verify`.
        fail_fast: Exit 4 when Kafka or registry is absent, instead of waiting for it.
    """
    settings = read_settings(
        "archive",
        {
            "kafka_bootstrap": kafka_bootstrap,
            "schema_registry_url": schema_registry,
            "log_level": log_level.upper() if log_level else None,
        },
    )
    if settings is None:
        return ExitCode.CONFIGURATION
    log_file = settings.log_file or LOG_FILE
    configure_logging(service="archive", level=settings.log_level, file=log_file)
    code = asyncio.run(_run(settings, from_first=from_first, fail_fast=fail_fast))
    if code is ExitCode.CLEAN:
        _log.info("Shutdown complete")
    return code


async def _run(settings: Settings, *, from_first: bool, fail_fast: bool) -> ExitCode:
    stop = stop_on_signals()
    _log.info("archive_started", lake=str(settings.lake_path.absolute()), pid=os.getpid())
    port = settings.archive_metrics_port
    try:
        runner = await metrics.serve_metrics(port) if port else None
        try:
            await _archive_until(stop, settings, from_first=from_first, fail_fast=fail_fast)
        finally:
            if runner is not None:
                await runner.cleanup()
    except UnavailableError as exc:
        _log.error("archive_stopped", reason=str(exc))
        return ExitCode.DEPENDENCY_UNAVAILABLE
    except K2Error as exc:
        _log.error("archive_stopped", reason=str(exc))
        return ExitCode.FAILED
    return ExitCode.CLEAN


async def _archive_until(
    stop: asyncio.Event, settings: Settings, *, from_first: bool, fail_fast: bool
) -> None:
    names = TopicNames.of(settings.topic_prefix)
    admin = AdminClient({"bootstrap.servers": settings.kafka_bootstrap, "log_level": 2})
    registry = Registry(settings.schema_registry_url)

    def known_schema(schema_id: int) -> str | None:
        text = registry.schema_text(schema_id)
        if text is None and registry.latest(names.subject) is None:
            # An emptied or wrong registry must not turn good trades into dead letters.
            raise RetryError(
                f"the registry at {registry.url} knows no schema of {names.subject}: is it the "
                "right one? `k2 schema register` registers ours"
            )
        return text

    async def prepare() -> list[TopicArchive]:
        facts = await until_it_works(
            f"Kafka at {settings.kafka_bootstrap}",
            lambda: asyncio.to_thread(topic_facts, admin, names),
            fail_fast=fail_fast,
        )
        return await until_it_works(
            "the lake", lambda: asyncio.to_thread(open_tables, facts), fail_fast=fail_fast
        )

    def open_tables(facts: dict[str, TopicFacts]) -> list[TopicArchive]:
        catalog = open_catalog(lake_dir=settings.lake_path, catalog_name=settings.lake_catalog)
        trades = TradeDecoder(known_schema, reader_schema_text=SCHEMA_TEXT)
        # Gaps first: a declared id must never look missing for want of its declaration.
        return [
            TopicArchive(
                settings,
                names.gaps,
                facts[names.gaps],
                lambda t: TableWriter(
                    catalog, "gaps", GapDecoder(), topic=t, from_first=from_first
                ),
            ),
            TopicArchive(
                settings,
                names.trades,
                facts[names.trades],
                lambda t: TableWriter(catalog, "trades", trades, topic=t, from_first=from_first),
            ),
        ]

    preparing = asyncio.create_task(prepare())
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({preparing, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not preparing.done():
        preparing.cancel()
        return
    archives = preparing.result()
    try:
        while not stop.is_set():
            await asyncio.to_thread(_turn, archives)
        await asyncio.to_thread(_drain, archives)
    finally:
        for one in archives:
            await asyncio.to_thread(one.close)


def _turn(archives: list["TopicArchive"]) -> None:
    _poll(archives)
    if any(one.due for one in archives):
        _flush(archives)


def _flush(archives: list["TopicArchive"]) -> None:
    """Gaps first; while their table cannot take them, the trades behind them wait too."""
    for one in archives:
        if not one.flush():
            return


def _poll(archives: list["TopicArchive"]) -> int:
    """Poll trades before gaps and flush gaps before trades: no declaration is ever late."""
    return sum(one.poll() for one in reversed(archives))


def _drain(archives: list["TopicArchive"]) -> None:
    """Take what Kafka has committed by now, bounded, and put it into the tables."""
    deadline_s = time.monotonic() + DRAIN_DEADLINE_S
    quiet = 0
    while quiet < QUIET_POLLS and time.monotonic() < deadline_s:
        quiet = 0 if _poll(archives) else quiet + 1
    _flush(archives)


class TopicArchive:
    """One topic on its way into one table; blocking, one thread."""

    def __init__(
        self,
        settings: Settings,
        topic: str,
        facts: TopicFacts,
        open_writer: Callable[[str], TableWriter],
    ) -> None:
        """Open the table and start reading where it says it ends."""
        self._settings = settings
        self._topic = topic
        self._writer = open_writer(f"{topic}@{facts.topic_id}")
        self._dead_letters = DeadLetters(
            settings.dead_letter_dir, topic=topic, connection_id="archive"
        )
        self._values: list[bytes | None] = []
        self._bytes = 0
        self._flushed_at_s = 0.0
        self._remind_at_s = 0.0
        self._next: dict[int, int] = {}
        self._consumer = Consumer(
            {
                "bootstrap.servers": settings.kafka_bootstrap,
                "group.id": CONSUMER_GROUP,
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                # Records the table lacks that Kafka no longer has are a loss to be seen.
                "auto.offset.reset": "error",
                "fetch.queue.backoff.ms": 1,
                "fetch.wait.max.ms": 100,
                "log_level": 2,  # what goes wrong comes as an event, see _judge
            }
        )
        starts = [
            TopicPartition(topic, partition, self._writer.state.offsets.get(partition, 0))
            for partition in range(facts.partitions)
        ]
        self._consumer.assign(
            [
                s if s.offset else TopicPartition(topic, s.partition, OFFSET_BEGINNING)
                for s in starts
            ]
        )
        _log.info("archive_begins", topic=topic, offsets={s.partition: s.offset for s in starts})

    @property
    def due(self) -> bool:
        """Whether the batch is old, long or large enough for a table commit.

        After a quiet time the first records go at once; in a steady flow one table commit follows
        the other at the flush age, and no record is older than it when its commit begins.
        """
        if not self._values:
            return False
        return (
            time.monotonic() - self._flushed_at_s >= self._settings.flush_age_s
            or len(self._values) >= self._settings.flush_rows
            or self._bytes >= self._settings.flush_bytes
        )

    def poll(self) -> int:
        """Take what Kafka has, waiting briefly; nothing while the lake cannot keep up.

        Returns how many records came.
        """
        if len(self._values) >= HELD_FLUSHES_MAX * self._settings.flush_rows:
            return 0
        try:
            messages = self._consumer.consume(RECORDS_PER_POLL, POLL_S)
        except KafkaException as exc:
            raise StopError(f"Kafka cannot read {self._topic}: {exc.args[0].str()}") from exc
        for message in messages:
            if (problem := message.error()) is not None:
                self._judge(problem)
                continue
            value = message.value()
            self._values.append(value)
            self._bytes += len(value or b"")
            self._next[message.partition() or 0] = (message.offset() or 0) + 1
        return len(messages)

    def flush(self) -> bool:
        """Commit the batch to the table; where nothing happened keep it for the next turn.

        Returns whether the batch is in the table (or there was none).

        Raises:
            ReconcileError: If nobody can say what became of the commit; the next start looks.
        """
        if not self._values:
            return True
        began_s = time.monotonic()
        try:
            landed = self._writer.write(self._values, offsets=self._next)
        except RetryError as exc:
            metrics.table_commit_failures.labels(self._writer.name, "retry").inc()
            _log.warning("table_commit_waits", table=self._writer.name, reason=str(exc))
            time.sleep(0.5)
            return False
        took_s = time.monotonic() - began_s
        self._flushed_at_s = began_s
        self._report(landed, took_s)
        self._values, self._bytes, self._next = [], 0, {}
        return True

    def close(self) -> None:
        """Let go of Kafka."""
        self._consumer.close()

    def _report(self, landed: Landed, took_s: float) -> None:
        name = self._writer.name
        metrics.rows_written.labels(name).inc(landed.rows)
        metrics.table_commit_seconds.labels(name).observe(took_s)
        for bad in landed.decoded.undecodable:
            metrics.message_errors.labels(bad.error_type).inc()
            _log.warning("record_not_archived", topic=self._topic, reason=bad.error)
            self._dead_letters.write(
                original=_readable(bad.value),
                error=bad.error,
                error_type=bad.error_type,
                symbol=None,
            )
        if landed.decoded.repeated and self._writer.rereads:
            _log.info("records_already_held", topic=self._topic, count=len(landed.decoded.repeated))
        elif landed.decoded.repeated:
            _log.error(
                "promise_broken",
                topic=self._topic,
                what="the topic holds ids the table already has; their rows were left out",
                count=len(landed.decoded.repeated),
                first=landed.decoded.repeated[0],
            )
        # For lag dashboards only: the table's own offsets are what the next start reads.
        offsets = [TopicPartition(self._topic, p, offset) for p, offset in self._next.items()]
        try:
            self._consumer.commit(offsets=offsets, asynchronous=True)
        except KafkaException as exc:
            _log.debug("offset_commit_skipped", reason=exc.args[0].str())

    def _judge(self, problem: KafkaError) -> None:
        # The library's names for its own codes start with an underscore.
        if problem.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):  # noqa: SLF001
            raise StopError(
                f"Kafka no longer has the records of {self._topic} that follow the table: "
                f"{problem.str()}. Retention was shorter than the archive's absence. Start it "
                "with `k2 archive --from-first`; what is missing then shows in `k2 verify`"
            )
        if problem.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            raise StopError(f"topic {self._topic} was deleted while it was being archived")
        now_s = time.monotonic()
        if problem.code() == KafkaError._ALL_BROKERS_DOWN and now_s >= self._remind_at_s:  # noqa: SLF001
            self._remind_at_s = now_s + REMIND_EVERY_S
            _log.warning("Kafka cannot be reached", topic=self._topic, reason=problem.str())


def _readable(value: bytes) -> dict[str, Any]:
    try:
        return {"_raw": value.decode("utf-8")}
    except UnicodeDecodeError:
        text = value.decode("utf-8", errors="replace")
        return {"_raw": text, "_raw_base64": base64.b64encode(value).decode()}
