"""The page a scraper reads: this process's families, as text or OpenMetrics."""

from aiohttp import web
from prometheus_client import GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import CollectorRegistry

from k2.observability.families import Families
from k2.observability.http import HOST, serve


async def serve_metrics(port: int, families: Families, *, host: str = HOST) -> web.AppRunner:
    """Serve ``/metrics`` as text or OpenMetrics, by what the scraper accepts.

    Raises:
        StopError: If the port is taken.
    """
    registry = CollectorRegistry()
    registry.register(families)
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        collector(registry=registry)

    async def metrics(request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(registry), headers={"Content-Type": content_type})

    return await serve(
        port,
        "/metrics",
        metrics,
        host=host,
        variables="K2_METRICS_PORT (k2 stream) or K2_ARCHIVE_METRICS_PORT (k2 archive)",
    )
