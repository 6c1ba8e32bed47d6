import asyncio
import socket

import aiohttp
import pytest
from aiohttp import web
from prometheus_client import REGISTRY

from k2.errors import StopError
from k2.observability import metrics
from k2.observability.http import serve


def test_the_contracts_names_are_there_from_the_start() -> None:
    names = {metric.name for metric in REGISTRY.collect()}
    assert names >= {
        "binance_connection_state",
        "binance_connection_errors",
        "binance_reconnections",
        "binance_messages_received",
        "binance_message_errors",
        "binance_message_latency_seconds",
        "binance_dlq_records",
        "kafka_messages_produced",
        "kafka_produce_errors",
        "duplicate_messages_detected",
        "iceberg_rows_written",
        "k2_shard_writer",
        "binance_connection_rotations",
        "binance_producer_queue_messages",
        "k2_holes_open",
        "k2_gaps_declared",
        "k2_trades_healed",
        "k2_trades_let_go",
        "k2_trades_repaired",
        "k2_ids_backfilled",
        "k2_symbol_silent",
        "k2_fill_breaks",
    }


def test_metrics_are_served_on_loopback_and_a_taken_port_is_one_clear_line() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    async def story() -> None:
        runner = await metrics.serve_metrics(port)
        try:
            url = f"http://127.0.0.1:{port}/metrics"
            async with aiohttp.ClientSession() as session, session.get(url) as response:
                assert "binance_connection_state " in await response.text()
            with pytest.raises(StopError, match=rf"port {port} .*K2_METRICS_PORT"):
                await metrics.serve_metrics(port)
        finally:
            await runner.cleanup()

    asyncio.run(story())


def test_a_page_of_another_kind_names_its_own_variable() -> None:
    async def answer(_request: web.Request) -> web.Response:
        return web.Response(text="{}")

    async def story() -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            with pytest.raises(StopError, match=rf"port {port} for /health .*K2_HEALTH_PORT"):
                await serve(port, "/health", answer, variables="K2_HEALTH_PORT")

    asyncio.run(story())
