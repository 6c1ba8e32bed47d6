"""``k2 archive``: the archive service, Kafka to Iceberg, each record's row once."""

import asyncio
import os
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Annotated

import structlog
from confluent_kafka.admin import AdminClient
from cyclopts import App, Parameter

from k2 import __version__
from k2.errors import K2Error
from k2.ingestion.archive_status import ArchiveStatus
from k2.ingestion.archive_tables import open_archives, trade_decoder
from k2.ingestion.dlq_judging import ARCHIVE
from k2.ingestion.dlq_opening import open_dead_letters
from k2.ingestion.health_pages import health_pages
from k2.ingestion.host import MACHINE
from k2.ingestion.looks import Dependency, watch_kafka
from k2.ingestion.memory_trail import MemoryTrail
from k2.ingestion.process_figures import show_build, show_memory
from k2.ingestion.service import log_to_file, read_settings
from k2.ingestion.supervision import (
    ExitCode,
    UnavailableError,
    beside,
    stop_on_signals,
    until_it_works,
)
from k2.ingestion.topic_archive import CONSUMER_GROUP, TopicArchive
from k2.kafka.admin import KafkaAdmin
from k2.kafka.topics import TopicNames, topic_facts
from k2.lake.commit_threads import commit_on_one_thread
from k2.observability import first_series, metrics
from k2.observability.http import serve_pages
from k2.observability.memory import MemoryWatch, own_memory
from k2.observability.metrics_page import serve_metrics
from k2.settings import Settings

LOG_FILE = Path("logs/archive.log")
TURN_S = 0.2
DRAIN_DEADLINE_S = 3.0
QUIET_POLLS = 2

_log = structlog.get_logger()

app = App(
    name="archive",
    version=__version__,
    help="Archive trades: Kafka topic to Iceberg table, each id once.",
    help_epilogue=(
        "Examples:\n\n"
        "  k2 archive\n\n"
        "  K2_LAKE_DIR=/data/lake k2 archive --kafka-bootstrap kafka:9092\n\n"
        "Exit codes: 0 clean, 1 failed, 2 configuration, 3 the lake did not take all that was read "
        "(the next start reads it again), 4 a dependency is absent and --fail-fast was given."
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
    if not log_to_file("archive", settings, default=LOG_FILE):
        return ExitCode.CONFIGURATION
    code = asyncio.run(_run(settings, from_first=from_first, fail_fast=fail_fast))
    if code is ExitCode.CLEAN:
        _log.info("Shutdown complete")
    return code


async def _run(settings: Settings, *, from_first: bool, fail_fast: bool) -> ExitCode:
    stop = stop_on_signals()
    commit_on_one_thread()
    names = TopicNames.of(settings.topic_prefix)
    first_series.begin_archive(
        tables=("gaps", "trades"),
        topics=(names.gaps, names.trades, names.repairs),
        shards=settings.shards,
        group=CONSUMER_GROUP,
    )
    show_build(settings.color)
    _log.info("archive_started", lake=str(settings.lake_path.absolute()), pid=os.getpid())
    try:
        async with AsyncExitStack() as stack:
            if settings.archive_metrics_port:
                runner = await serve_metrics(
                    settings.archive_metrics_port, metrics.archive, host=settings.bind
                )
                stack.push_async_callback(runner.cleanup)
            admin = KafkaAdmin(settings.kafka)
            status = await _status(settings, admin, stop, stack)
            return await _archive_until(
                stop, settings, admin, status, stack, from_first=from_first, fail_fast=fail_fast
            )
    except UnavailableError as exc:
        _log.error("archive_stopped", reason=str(exc))
        return ExitCode.DEPENDENCY_UNAVAILABLE
    except K2Error as exc:
        _log.error("archive_stopped", reason=str(exc))
        return ExitCode.FAILED


async def _status(
    settings: Settings, admin: AdminClient, stop: asyncio.Event, stack: AsyncExitStack
) -> ArchiveStatus:
    """Watch Kafka and memory, and serve what is known, from the first moment on."""
    kafka = Dependency(settings.kafka_bootstrap, host=MACHINE)
    memory = MemoryWatch(read=own_memory, monotonic_s=MACHINE.monotonic_s)
    stack.callback(metrics.process.before_scrape(partial(show_memory, memory)))
    trail = MemoryTrail(read=own_memory, leak_score=lambda: memory.leak_score)
    status = ArchiveStatus(kafka=kafka, memory=trail, stop=stop, host=MACHINE)
    watching = (status.run(), memory.run(), watch_kafka(admin, kafka))
    await stack.enter_async_context(beside(*watching))
    if settings.archive_health_port:
        runner = await serve_pages(
            settings.archive_health_port,
            health_pages(status),
            variables="K2_ARCHIVE_HEALTH_PORT",
            host=settings.bind,
        )
        stack.push_async_callback(runner.cleanup)
    return status


async def _archive_until(
    stop: asyncio.Event,
    settings: Settings,
    admin: AdminClient,
    status: ArchiveStatus,
    stack: AsyncExitStack,
    *,
    from_first: bool,
    fail_fast: bool,
) -> ExitCode:
    dead_letters = open_dead_letters(settings, connection_id=ARCHIVE)
    stack.push_async_callback(asyncio.to_thread, dead_letters.close)
    decoder = trade_decoder(settings)

    async def prepare() -> list[TopicArchive]:
        names = TopicNames.of(settings.topic_prefix)
        facts = await until_it_works(
            f"Kafka at {settings.kafka_bootstrap}",
            lambda: asyncio.to_thread(topic_facts, admin, names),
            fail_fast=fail_fast,
        )
        opened = partial(
            open_archives, settings, facts, decoder, dead_letters, from_first=from_first
        )
        return await until_it_works(
            "the lake", lambda: asyncio.to_thread(opened), fail_fast=fail_fast
        )

    def show_schemas() -> None:
        metrics.serializer_cache_size.labels(metrics.CONSUMER).set(decoder.schemas)
        metrics.serializer_cache_evictions.labels(metrics.CONSUMER).set(decoder.evictions)

    preparing = asyncio.create_task(prepare())
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({preparing, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not preparing.done():
        preparing.cancel()
        await asyncio.gather(preparing, return_exceptions=True)
        return ExitCode.CLEAN
    archives = preparing.result()
    for one in archives:
        stack.push_async_callback(asyncio.to_thread, one.close)
    for show in (show_schemas, *(one.show_age for one in archives)):
        stack.callback(metrics.archive.before_scrape(show))
    status.unread = lambda: {one.topic: one.unread for one in archives}
    status.started = True
    while not stop.is_set():
        await asyncio.to_thread(_turn, archives)
    if await asyncio.to_thread(_drain, archives):
        return ExitCode.CLEAN
    _log.error("drained_incompletely", heals_by="Kafka has it: the next start reads it again")
    return ExitCode.DRAINED_INCOMPLETELY


def _turn(archives: Sequence[TopicArchive]) -> None:
    _poll(archives)
    if any(one.due for one in archives):
        _flush(archives)


def _flush(archives: Sequence[TopicArchive]) -> None:
    """In this order; while a table cannot take one topic's records, those behind it wait too."""
    for one in archives:
        if not one.flush():
            return


def _poll(archives: Sequence[TopicArchive]) -> int:
    """Poll gaps last and flush them first: no declaration is ever late."""
    return sum(one.poll(TURN_S / len(archives)) for one in reversed(archives))


def _drain(archives: Sequence[TopicArchive]) -> bool:
    """Take what Kafka has committed by now, bounded, and put it into the tables.

    Returns whether they took it; after one that did not, those behind it are not asked.
    """
    deadline_s = time.monotonic() + DRAIN_DEADLINE_S
    quiet = 0
    while quiet < QUIET_POLLS and time.monotonic() < deadline_s:
        quiet = 0 if _poll(archives) else quiet + 1
    return all(one.finish() for one in archives)
