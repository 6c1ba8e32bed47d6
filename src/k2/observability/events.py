"""Server-sent events: a value goes out each second to every client that listens.

Source: WHATWG HTML, "Server-sent events" (an event is ``data: ...`` and an empty line).
"""

import asyncio
from collections.abc import Callable

from aiohttp import web

from k2.observability.http import DOOR

EVERY_S = 1.0
CLIENTS_MAX = 8
WRITE_MAX_S = 5.0
"""A client that takes so long to take one event is let go."""

_RECONNECT_MS = 1000


class EventStream:
    """One stream with few clients; all get the same value."""

    def __init__(self, value: Callable[[], bytes]) -> None:
        """``value`` returns what is so now, as one line."""
        self.clients = 0
        self._value = value

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Send the value at once and then each second, until somebody ends it."""
        if self.clients >= CLIENTS_MAX:
            return web.Response(
                text=f"{CLIENTS_MAX} clients listen already\n",
                status=503,
                headers={"Retry-After": "5"},
            )
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        self.clients += 1
        try:
            door = request.app[DOOR]
            door.stay(request)
            await response.prepare(request)
            if request.method != "HEAD":
                await self._send(response, door.closing)
        except (ConnectionError, TimeoutError):
            if request.transport is not None:
                request.transport.abort()  # what it did not take is not kept for it
        finally:
            self.clients -= 1
        return response

    async def _send(self, response: web.StreamResponse, closing: asyncio.Event) -> None:
        await response.write(f"retry: {_RECONNECT_MS}\n\n".encode())
        while not closing.is_set():
            async with asyncio.timeout(WRITE_MAX_S):
                await response.write(b"data: " + self._value() + b"\n\n")
            try:
                async with asyncio.timeout(EVERY_S):
                    await closing.wait()
            except TimeoutError:
                continue
