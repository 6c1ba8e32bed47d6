"""The capture on this machine: real sockets, a real Kafka, threads, signals and ports."""

import asyncio
import os
import secrets
import socket
import ssl
from contextlib import AsyncExitStack
from functools import partial

from confluent_kafka.admin import AdminClient

from k2.binance.rest import RestClient
from k2.binance.websocket import connect
from k2.ingestion.admission import Prepared, prepare
from k2.ingestion.capture import Capture
from k2.ingestion.capture_figures import CaptureFigures
from k2.ingestion.capture_status import CaptureStatus
from k2.ingestion.clock import ClockWatch
from k2.ingestion.connects import ConnectBudget
from k2.ingestion.dlq_opening import open_dead_letters
from k2.ingestion.health_pages import health_pages, page_answer
from k2.ingestion.host import MACHINE
from k2.ingestion.legs import LEG_NAMES
from k2.ingestion.looks import Dependency, Lake, watch_archive, watch_kafka, watch_registry
from k2.ingestion.membership import Wish
from k2.ingestion.memory_trail import MemoryTrail
from k2.ingestion.ports import Ports
from k2.ingestion.process_figures import show_build, show_memory
from k2.ingestion.signals import Signals
from k2.ingestion.supervision import ExitCode, beside
from k2.ingestion.venue import rest_of, tls_of
from k2.ingestion.workers import ThreadWorker
from k2.kafka.admin import KafkaAdmin
from k2.kafka.clients import LIBRARY
from k2.kafka.dead_letters import DeadLetters
from k2.kafka.lease import Lease, group_id, other_members
from k2.kafka.topics import TopicNames
from k2.kafka.trade_follower import TradeFollower
from k2.market.wanted import Wanted
from k2.observability import first_series, metrics
from k2.observability.http import serve_pages
from k2.observability.memory import MemoryWatch, own_memory
from k2.observability.metrics_page import serve_metrics
from k2.settings import Settings

CONNECTS_FILE = "connects.json"


async def run_capture(
    settings: Settings, wanted: Wanted, stop: asyncio.Event, *, fail_fast: bool
) -> ExitCode:
    """Record the wanted symbols until ``stop`` is set."""
    first_series.begin_capture(
        legs=LEG_NAMES[: settings.legs],
        topic=TopicNames.of(settings.topic_prefix).trades,
        symbols=wanted.names,
        shards=settings.shards,
    )
    show_build(settings.color)
    signals = Signals(Wish(settings.role), host=MACHINE)
    tls = tls_of(settings)
    async with AsyncExitStack() as stack:
        if settings.metrics_port:
            runner = await serve_metrics(settings.metrics_port, metrics.capture, host=settings.bind)
            stack.push_async_callback(runner.cleanup)
        admin = KafkaAdmin(settings.kafka)
        status = await _status(settings, admin, stop, stack)
        preparing = asyncio.create_task(prepare(settings, wanted, fail_fast=fail_fast))
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({preparing, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not preparing.done():
            preparing.cancel()
            await asyncio.gather(preparing, return_exceptions=True)
            return ExitCode.CLEAN
        prepared = preparing.result()
        rest = await stack.enter_async_context(rest_of(settings, tls=tls))
        # Containers that share a host's name all begin with process 1: nobody else may be us.
        client_id = f"k2-{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
        dead_letters = open_dead_letters(settings, connection_id=client_id)
        stack.push_async_callback(asyncio.to_thread, dead_letters.close)
        capture = _capture(
            settings,
            wanted,
            prepared,
            rest,
            dead_letters,
            tls=tls,
            admin=admin,
            client_id=client_id,
        )
        metrics.serializer_cache_size.labels(metrics.PRODUCER).set(1)
        figures = CaptureFigures(capture, breaker=rest.breaker, host=MACHINE)
        stack.callback(metrics.capture.before_scrape(figures.measure))
        await stack.enter_async_context(beside(ClockWatch(rest.clock, found=status.clock_is).run()))
        status.tell_of(capture)
        signals.rule(capture)
        return await capture.run(stop, fail_fast=fail_fast)


def _capture(
    settings: Settings,
    wanted: Wanted,
    prepared: Prepared,
    rest: RestClient,
    dead_letters: DeadLetters,
    *,
    tls: ssl.SSLContext,
    admin: AdminClient,
    client_id: str,
) -> Capture:
    names = prepared.names
    budget = ConnectBudget(
        settings.state_dir / CONNECTS_FILE, share=settings.address_share, host=MACHINE
    )
    return Capture(
        settings,
        wanted,
        prepared,
        Ports(
            host=MACHINE,
            connect=partial(connect, tls=tls),
            may_connect=budget.take,
            rest=rest,
            clients=LIBRARY,
            worker=ThreadWorker,
        ),
        dead_letters,
        make_lease=lambda: Lease(settings.kafka, names=names, client_id=client_id),
        others=partial(other_members, admin, group_id(names.trades), client_id=client_id),
        follow_trades=lambda shard: TradeFollower(
            settings.kafka, trades_topic=names.trades, shard=shard
        ),
    )


async def _status(
    settings: Settings, admin: AdminClient, stop: asyncio.Event, stack: AsyncExitStack
) -> CaptureStatus:
    """Watch what the capture depends on, and serve what is known, from the first moment on."""
    kafka = Dependency(settings.kafka_bootstrap, host=MACHINE)
    registry = Dependency(settings.schema_registry_url, host=MACHINE)
    port = settings.archive_health_port
    lake = Lake(port, host=MACHINE) if port else None
    memory = MemoryWatch(read=own_memory, monotonic_s=MACHINE.monotonic_s)
    status = CaptureStatus(
        settings,
        kafka=kafka,
        registry=registry,
        lake=lake,
        memory=MemoryTrail(read=own_memory, leak_score=lambda: memory.leak_score),
        stop=stop,
        host=MACHINE,
    )
    stack.callback(metrics.process.before_scrape(partial(show_memory, memory)))
    watching = [status.run(), memory.run(), watch_kafka(admin, kafka)]
    watching.append(watch_registry(settings.registry, registry))
    if lake is not None:
        watching.append(watch_archive(lake))
    await stack.enter_async_context(beside(*watching))
    if settings.health_port:
        pages = {"/": page_answer(), **health_pages(status)}
        runner = await serve_pages(
            settings.health_port, pages, variables="K2_HEALTH_PORT", host=settings.bind
        )
        stack.push_async_callback(runner.cleanup)
    return status
