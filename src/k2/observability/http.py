"""Pages on one port, for whoever knocks: bounded in clients, in time and in bytes.

Nothing here reads a file for a client, and a connection answers one request. What stays open for
longer (an event stream) says so, and is counted by whoever serves it.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus

from aiohttp import web
from aiohttp.http_exceptions import BadHttpMessage

from k2.errors import StopError

HOST = "127.0.0.1"
CLIENTS_MAX = 64
"""Connections at once. One more ends the oldest that is not an event stream."""

REQUEST_MAX_S = 10.0
"""From the connection to the end of the answer; who is slower is cut off."""

HEADER_MAX_BYTES = 8190
SHUTDOWN_MAX_S = 1.0

NO_PAGE_POLICY = "default-src 'none'; frame-ancestors 'none'"
"""What an answer that is no page may load: nothing."""

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Door:
    """The connections of one server."""

    def __init__(self) -> None:
        """Open it; nobody is here yet."""
        self.closing = asyncio.Event()
        """Set when the server stops: streams end."""
        self._visits: dict[asyncio.BaseTransport, _Visit] = {}

    @property
    def open(self) -> int:
        """How many connections there are."""
        return len(self._visits)

    def stay(self, request: web.Request) -> None:
        """Let the connection of this request last for as long as its answer goes on."""
        visit = self._visits.get(request.transport) if request.transport is not None else None
        if visit is not None:
            visit.stay()

    def enter(self, transport: asyncio.BaseTransport, visit: "_Visit") -> bool:
        """Take a connection in; when the house is full the oldest that waits has to go."""
        if len(self._visits) >= CLIENTS_MAX:
            oldest = next((one for one in self._visits.values() if not one.stays), None)
            if oldest is None:
                return False
            oldest.cut_off()
        self._visits[transport] = visit
        return True

    def leave(self, transport: asyncio.BaseTransport | None) -> None:
        """Forget a connection."""
        if transport is not None:
            self._visits.pop(transport, None)

    async def close(self, _app: web.Application) -> None:
        """Tell the streams to end."""
        self.closing.set()


DOOR = web.AppKey("door", Door)


class _Visit(asyncio.Protocol):
    """One connection: the server's own protocol behind a deadline."""

    def __init__(self, door: Door, server: asyncio.Protocol) -> None:
        self.stays = False
        self._door = door
        self._server = server
        self._transport: asyncio.Transport | None = None
        self._deadline: asyncio.TimerHandle | None = None

    def stay(self) -> None:
        self.stays = True
        if self._deadline is not None:
            self._deadline.cancel()

    def cut_off(self) -> None:
        self._door.leave(self._transport)
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - a TCP server's
        if not self._door.enter(transport, self):
            transport.abort()
            return
        self._transport = transport
        loop = asyncio.get_running_loop()
        self._deadline = loop.call_later(REQUEST_MAX_S, self.cut_off)
        self._server.connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._transport is None:
            return  # it never came in
        if self._deadline is not None:
            self._deadline.cancel()
        self._door.leave(self._transport)
        self._server.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._transport is not None:
            self._server.data_received(data)

    def eof_received(self) -> bool | None:
        return self._server.eof_received() if self._transport is not None else None

    def pause_writing(self) -> None:
        self._server.pause_writing()

    def resume_writing(self) -> None:
        self._server.resume_writing()


class _Site(web.BaseSite):
    """A port whose connections pass the door."""

    def __init__(self, runner: web.AppRunner, host: str, port: int, door: Door) -> None:
        super().__init__(runner)
        self._host = host
        self._port = port
        self._door = door

    @property
    def name(self) -> str:
        return f"http://{self._host}:{self._port}"

    async def start(self) -> None:
        await super().start()
        server = self._runner.server
        assert server is not None  # noqa: S101 - the runner is set up

        def visit() -> _Visit:
            return _Visit(self._door, server())

        self._server = await asyncio.get_running_loop().create_server(visit, self._host, self._port)


async def serve(
    port: int, path: str, answer: Answer, *, host: str = HOST, variables: str
) -> web.AppRunner:
    """Serve one page; see ``serve_pages``."""
    return await serve_pages(port, {path: answer}, host=host, variables=variables)


async def serve_pages(
    port: int, pages: Mapping[str, Answer], *, host: str = HOST, variables: str
) -> web.AppRunner:
    """Serve pages, by path, to GET and HEAD; on loopback unless another ``host`` is named.

    Raises:
        StopError: If the port is taken; it names the ``variables`` that choose another.
    """
    app = web.Application(middlewares=[_only_reading])
    app[DOOR] = door = Door()
    app.on_response_prepare.append(_head)
    app.on_shutdown.append(door.close)
    for path, answer in pages.items():
        app.router.add_get(path, answer)
    runner = web.AppRunner(
        app,
        access_log=None,
        logger=_logger(),
        shutdown_timeout=SHUTDOWN_MAX_S,
        max_line_size=HEADER_MAX_BYTES,
        max_field_size=HEADER_MAX_BYTES,
        lingering_time=0,
    )
    await runner.setup()
    try:
        await _Site(runner, host, port, door).start()
    except OSError as exc:
        await runner.cleanup()
        raise StopError(
            f"port {port} for {', '.join(pages)} is in use: is another one running? Choose a port "
            f"with {variables}; 0 turns it off"
        ) from exc
    return runner


@web.middleware
async def _only_reading(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    if request.method not in ("GET", "HEAD"):
        return _refusal(HTTPStatus.METHOD_NOT_ALLOWED, {"Allow": "GET, HEAD"})
    try:
        return await handler(request)
    except web.HTTPException as exc:
        return _refusal(HTTPStatus(exc.status), {})


def _refusal(status: HTTPStatus, headers: Mapping[str, str]) -> web.Response:
    return web.Response(text=f"{status.value} {status.phrase}\n", status=status, headers=headers)


async def _head(_request: web.Request, response: web.StreamResponse) -> None:
    """Say what goes for every answer: fresh, read as what it is, and the last on its connection."""
    headers = response.headers
    headers.setdefault("Cache-Control", "no-store")
    headers.setdefault("Content-Security-Policy", NO_PAGE_POLICY)
    headers["X-Content-Type-Options"] = "nosniff"
    headers["Referrer-Policy"] = "no-referrer"
    headers["Cross-Origin-Resource-Policy"] = "same-origin"
    headers["Server"] = "k2"
    headers["Connection"] = "close"
    response.force_close()


def _logger() -> logging.Logger:
    """Return a log without what strangers send: only our own bugs are news."""
    logger = logging.getLogger("k2.http")
    if not logger.filters:
        logger.addFilter(_ours)
    return logger


def _ours(record: logging.LogRecord) -> bool:
    problem = record.exc_info[1] if record.exc_info else None
    return not isinstance(problem, BadHttpMessage | ConnectionError)
