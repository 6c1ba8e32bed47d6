"""An exchange whose clock is ahead and whose stream takes no subscription; the rest is relayed."""

import asyncio
import json
from collections.abc import Coroutine
from threading import Thread
from typing import Any, Self

from aiohttp import ClientSession, web

MICROSECONDS_FROM = 10**14
"""Times above are microseconds, below milliseconds."""


class CrookedExchange:
    """Stands beside an exchange, in a thread of its own."""

    def __init__(self, real_url: str, *, ahead_s: float) -> None:
        self.url = ""
        self._real_url = real_url
        self._ahead_s = ahead_s
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

    def _call(self, coroutine: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(20)

    async def _serve(self) -> None:
        app = web.Application()
        app.router.add_get("/api/{path:.*}", self._rest)
        app.router.add_get("/{path:.*}", self._refuse_subscriptions)
        self._runner = web.AppRunner(app, shutdown_timeout=1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def _rest(self, request: web.Request) -> web.Response:
        url = f"{self._real_url}{request.path_qs}"
        kept = {n: v for n, v in request.headers.items() if n.upper().startswith("X-MBX")}
        async with ClientSession() as session, session.get(url, headers=kept) as reply:
            body = await reply.read()
            if request.path.endswith("/time"):
                told = json.loads(body)["serverTime"]
                unit = 10**6 if told >= MICROSECONDS_FROM else 10**3
                body = json.dumps({"serverTime": told + round(self._ahead_s * unit)}).encode()
            return web.Response(status=reply.status, body=body, content_type="application/json")

    async def _refuse_subscriptions(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            asked = json.loads(message.data)
            error = {"code": 2, "msg": "Invalid request"}
            await socket.send_json({"error": error, "id": asked.get("id")})
        return socket
