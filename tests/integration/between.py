"""A server of a test's own between client and exchange, in a thread of its own."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Coroutine
from threading import Thread
from typing import Any, Self

from aiohttp import web


class Between(ABC):
    """Serves on loopback while its context lasts; ``routes`` says what becomes of requests."""

    def __init__(self, real_url: str) -> None:
        self.port = 0
        self._real_url = real_url
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, daemon=True)
        self._runner: web.AppRunner | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        self._call(self._serve())
        return self

    def __exit__(self, *_exc: object) -> None:
        assert self._runner is not None
        self._call(self._runner.cleanup())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    @abstractmethod
    def routes(self, app: web.Application) -> None:
        """Say what becomes of requests."""

    def _call(self, coroutine: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(20)

    async def _serve(self) -> None:
        app = web.Application()
        self.routes(app)
        self._runner = web.AppRunner(app, shutdown_timeout=1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.port = self._runner.addresses[0][1]
