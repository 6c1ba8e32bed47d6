"""The pages every service serves on its health port, answered from values in memory."""

from typing import Protocol

import msgspec
from aiohttp import web

from k2.ingestion.health import Status
from k2.observability.events import EventStream
from k2.observability.http import Answer
from k2.observability.status_page import status_page


class Told(Protocol):
    """What a service says of itself."""

    @property
    def status(self) -> Status:
        """How it is."""


class Speaker(Protocol):
    """Who says it."""

    def health(self) -> Told:
        """Return all there is to say."""

    @property
    def started(self) -> bool:
        """Whether the start is over."""

    def not_ready(self) -> list[str]:
        """Return why it is not ready; nothing when it is."""


def health_pages(speaker: Speaker) -> dict[str, Answer]:
    """Return the pages, by path.

    ``/health`` is 200 while healthy or degraded, else 503 (contract R041); ``/livez`` says that the
    event loop turns, ``/readyz`` that the service does what it is for, ``/startupz`` that its start
    is over (R042); ``/events`` is ``/health`` each second.
    """
    encode = msgspec.json.Encoder().encode
    events = EventStream(lambda: encode(speaker.health()))

    async def health(_request: web.Request) -> web.Response:
        found = speaker.health()
        return _json(encode(found), good=found.status != "unhealthy")

    async def live(_request: web.Request) -> web.Response:
        return _json(b'{"live":true}', good=True)

    async def ready(_request: web.Request) -> web.Response:
        because = speaker.not_ready()
        return _json(encode({"ready": not because, "because": because}), good=not because)

    async def started(_request: web.Request) -> web.Response:
        return _json(encode({"started": speaker.started}), good=speaker.started)

    return {
        "/health": health,
        "/livez": live,
        "/readyz": ready,
        "/startupz": started,
        "/events": events.answer,
    }


def page_answer() -> Answer:
    """Return what answers with the status page."""
    page = status_page()

    async def answer(_request: web.Request) -> web.Response:
        return web.Response(
            body=page.body,
            content_type="text/html",
            charset="utf-8",
            headers={"Content-Security-Policy": page.policy},
        )

    return answer


def _json(body: bytes, *, good: bool) -> web.Response:
    return web.Response(
        body=body + b"\n", status=200 if good else 503, content_type="application/json"
    )
