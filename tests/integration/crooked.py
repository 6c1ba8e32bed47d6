"""An exchange whose clock is ahead and whose stream takes no subscription; the rest is relayed."""

import json

from aiohttp import ClientSession, web

from integration.between import Between

MICROSECONDS_FROM = 10**14
"""Times above are microseconds, below milliseconds."""


class CrookedExchange(Between):
    """Stands beside an exchange."""

    def __init__(self, real_url: str, *, ahead_s: float) -> None:
        super().__init__(real_url)
        self._ahead_s = ahead_s

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def routes(self, app: web.Application) -> None:
        app.router.add_get("/api/{path:.*}", self._rest)
        app.router.add_get("/{path:.*}", self._refuse_subscriptions)

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
