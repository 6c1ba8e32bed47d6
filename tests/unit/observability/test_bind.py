"""Where metrics, health and the status page can be reached from (K2_BIND)."""

import asyncio
import socket

import pytest

from k2.local.ports import pick_free
from k2.observability import metrics
from k2.observability.http import serve_pages
from k2.observability.metrics_page import serve_metrics
from k2.settings import load_settings

ANOTHER_LOOPBACK = "127.0.0.2"
"""An address of this machine that nobody binds by name: strangers come in by such a one."""


def _reached(port: int, host: str) -> bool:
    with socket.socket() as knocker:
        knocker.settimeout(2)
        return knocker.connect_ex((host, port)) == 0


@pytest.mark.parametrize(("bind", "by_strangers"), [(None, False), ("0.0.0.0", True)])
def test_pages_are_reached_from_here_and_by_strangers_only_when_told(
    monkeypatch: pytest.MonkeyPatch, bind: str | None, by_strangers: bool
) -> None:
    monkeypatch.delenv("K2_BIND", raising=False)
    if bind is not None:
        monkeypatch.setenv("K2_BIND", bind)
    host = load_settings().bind
    pages_port, metrics_port = pick_free(2)

    async def story() -> None:
        pages = await serve_pages(pages_port, {}, variables="K2_X", host=host)
        figures = await serve_metrics(metrics_port, metrics.capture, host=host)
        try:
            for port in (pages_port, metrics_port):
                assert await asyncio.to_thread(_reached, port, "127.0.0.1")
                assert await asyncio.to_thread(_reached, port, ANOTHER_LOOPBACK) is by_strangers
        finally:
            await pages.cleanup()
            await figures.cleanup()

    asyncio.run(story())
