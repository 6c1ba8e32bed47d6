"""The capture on this machine: real sockets, a real Kafka, threads, signals and ports."""

import asyncio
import os
import signal
import socket
from contextlib import AsyncExitStack
from functools import partial

import msgspec
from aiohttp import web
from confluent_kafka.admin import AdminClient

from k2.binance.rest import RestClient
from k2.binance.websocket import connect
from k2.ingestion.admission import Prepared, prepare
from k2.ingestion.capture import Capture
from k2.ingestion.connects import ConnectBudget
from k2.ingestion.health import health
from k2.ingestion.host import MACHINE
from k2.ingestion.membership import Wish
from k2.ingestion.ports import Ports
from k2.ingestion.supervision import ExitCode
from k2.ingestion.workers import ThreadWorker
from k2.kafka.clients import LIBRARY
from k2.kafka.dead_letters import DeadLetters
from k2.kafka.lease import Lease, group_id, other_members
from k2.kafka.trade_follower import TradeFollower
from k2.market.wanted import Wanted
from k2.observability import metrics
from k2.observability.http import serve
from k2.settings import Settings

CONNECTS_FILE = "connects.json"


async def run_capture(
    settings: Settings, wanted: Wanted, stop: asyncio.Event, *, fail_fast: bool
) -> ExitCode:
    """Record the wanted symbols until ``stop`` is set."""
    metrics.connection_state.set(0)
    roles = _Roles(Wish(settings.role))
    for symbol in wanted.names:
        metrics.messages_received.labels(symbol)
    async with AsyncExitStack() as stack:
        if settings.metrics_port:
            runner = await metrics.serve_metrics(settings.metrics_port)
            stack.push_async_callback(runner.cleanup)
        preparing = asyncio.create_task(prepare(settings, fail_fast=fail_fast))
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({preparing, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not preparing.done():
            preparing.cancel()
            await asyncio.gather(preparing, return_exceptions=True)
            return ExitCode.CLEAN
        prepared = preparing.result()
        rest = await stack.enter_async_context(
            RestClient(settings.rest_urls, kind=settings.stream, share=settings.address_share)
        )
        capture = _capture(settings, wanted, prepared, rest)
        if settings.health_port:
            await _serve_health(settings.health_port, capture, stack)
        roles.rule(capture)
        return await capture.run(stop, fail_fast=fail_fast)


def _capture(settings: Settings, wanted: Wanted, prepared: Prepared, rest: RestClient) -> Capture:
    names = prepared.names
    client_id = f"k2-{socket.gethostname()}-{os.getpid()}"
    budget = ConnectBudget(
        settings.state_dir / CONNECTS_FILE, share=settings.address_share, host=MACHINE
    )
    admin = AdminClient({"bootstrap.servers": settings.kafka_bootstrap, "log_level": 2})
    return Capture(
        settings,
        wanted,
        prepared,
        Ports(
            host=MACHINE,
            connect=connect,
            may_connect=budget.take,
            rest=rest,
            clients=LIBRARY,
            worker=ThreadWorker,
        ),
        DeadLetters(settings.dead_letter_dir, topic=names.trades, connection_id=client_id),
        make_lease=lambda: Lease(settings.kafka_bootstrap, names=names, client_id=client_id),
        others=partial(other_members, admin, group_id(names.trades), client_id=client_id),
        follow_trades=lambda shard: TradeFollower(
            settings.kafka_bootstrap, trades_topic=names.trades, shard=shard
        ),
    )


async def _serve_health(port: int, capture: Capture, stack: AsyncExitStack) -> None:
    async def answer(_request: web.Request) -> web.Response:
        found = health(capture, now_s=MACHINE.monotonic_s())
        status = 503 if found.status == "unhealthy" else 200
        body = msgspec.json.encode(found)
        return web.Response(body=body, status=status, content_type="application/json")

    runner = await serve(port, "/health", answer, variables="K2_HEALTH_PORT")
    stack.push_async_callback(runner.cleanup)


class _Roles:
    """SIGUSR1 and SIGUSR2, obeyed from the start: by default they would end the process."""

    def __init__(self, wish: Wish) -> None:
        self._wish = wish
        self._capture: Capture | None = None
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGUSR1, self._become, Wish.AUTO)
        loop.add_signal_handler(signal.SIGUSR2, self._become, Wish.OBSERVER)

    def rule(self, capture: Capture) -> None:
        """Pass on what was asked for so far, and from now on."""
        self._capture = capture
        if capture.membership.wish is not self._wish:
            capture.membership.become(self._wish)

    def _become(self, wish: Wish) -> None:
        self._wish = wish
        if self._capture is not None:
            self._capture.membership.become(wish)
