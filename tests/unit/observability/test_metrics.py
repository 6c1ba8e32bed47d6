import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest

from k2.errors import StopError
from k2.observability import first_series, metrics
from k2.observability.families import Families
from k2.observability.metrics_page import serve_metrics


@asynccontextmanager
async def _served(families: Families) -> AsyncIterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    runner = await serve_metrics(port, families)
    try:
        yield f"http://127.0.0.1:{port}/metrics"
    finally:
        await runner.cleanup()


def _page(families: Families, accept: str = "") -> tuple[str, str]:
    async def story() -> tuple[str, str]:
        async with (
            _served(families) as url,
            aiohttp.ClientSession() as session,
            session.get(url, headers={"Accept": accept}) as response,
        ):
            return response.headers["Content-Type"], await response.text()

    return asyncio.run(story())


def test_every_series_with_known_labels_is_there_before_anything_happened() -> None:
    first_series.begin_capture(
        legs="ab", topic="market.crypto.trades.binance", symbols=("BTCUSDT",), shards=1
    )
    _, page = _page(metrics.capture)
    lines = page.splitlines()
    for start in (
        "binance_connection_state ",
        'binance_reconnections_total{reason="pong_timeout"} ',
        'binance_messages_received_total{symbol="BTCUSDT"} ',
        'binance_message_errors_total{error_type="parse"} ',
        "binance_message_latency_seconds_bucket{le=",
        'kafka_messages_produced_total{exchange="BINANCE",topic="market.crypto.trades.binance"} ',
        'kafka_produce_errors_total{error_type="aborted",exchange="BINANCE",topic=',
        'binance_connection_rotations_total{leg="b",reason="scheduled_rotation"} ',
        'sequence_gaps_detected_total{exchange="BINANCE",severity="low",symbol="BTCUSDT"} ',
        'k2_takeovers_total{reason="start",shard="0"} ',
        "process_resident_memory_bytes ",
        "process_memory_rss_bytes ",
        "k2_promise_broken ",
    ):
        assert any(line.startswith(start) for line in lines), start


def test_the_archive_says_nothing_of_a_connection_it_does_not_have() -> None:
    first_series.begin_archive(tables=("trades",), topics=("t",), shards=1, group="g")
    _, page = _page(metrics.archive)
    assert 'kafka_consumer_lag_seconds{consumer_group="g",partition="0",topic="t"} ' in page
    assert "binance_connection_state" not in page
    assert 'iceberg_rows_written_total{table="trades"} ' in page
    assert "binance_dlq_records_total" in page


def test_a_scraper_gets_the_format_it_asks_for() -> None:
    plain, page = _page(metrics.capture)
    assert plain.startswith("text/plain")
    assert "# EOF" not in page
    kind, page = _page(metrics.capture, "application/openmetrics-text; version=1.0.0")
    assert kind.startswith("application/openmetrics-text")
    assert page.endswith("# EOF\n")


def test_a_taken_port_is_one_clear_line() -> None:
    async def story() -> None:
        async with _served(metrics.capture) as url:
            port = url.split(":")[2].split("/")[0]
            with pytest.raises(StopError, match=rf"port {port} .*K2_METRICS_PORT"):
                await serve_metrics(int(port), metrics.capture)

    asyncio.run(story())


@pytest.mark.parametrize(
    ("ids", "how_bad"), [(1, "low"), (9, "low"), (10, "medium"), (999, "medium"), (1_000, "high")]
)
def test_a_gap_is_as_bad_as_it_is_long(ids: int, how_bad: str) -> None:
    assert metrics.severity(ids) == how_bad
