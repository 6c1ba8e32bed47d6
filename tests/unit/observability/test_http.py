"""The port, knocked at by strangers on real sockets."""

import asyncio
import logging
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from k2.errors import StopError
from k2.local.ports import pick_free
from k2.observability import events, http
from k2.observability.events import EventStream
from k2.observability.http import DOOR, Door, serve_pages
from k2.observability.status_page import status_page

ASK = b"GET /page HTTP/1.1\r\nHost: k2\r\n\r\n"


class Server:
    """One page and one event stream on a real port."""

    def __init__(self, port: int, runner: web.AppRunner, stream: EventStream) -> None:
        self.port = port
        self.stream = stream
        app = runner.app
        self.door: Door = app[DOOR]

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def say(self, request: bytes, *, within_s: float = 5.0) -> bytes:
        """Return everything answered to these bytes until the connection ends."""
        reader, writer = await self.connect()
        try:
            writer.write(request)
            async with asyncio.timeout(within_s):
                try:
                    return await reader.read()
                except ConnectionError:
                    return b""
        finally:
            writer.transport.abort()


@asynccontextmanager
async def serving() -> AsyncIterator[Server]:
    async def page(_request: web.Request) -> web.Response:
        return web.Response(text="here")

    async def broken(_request: web.Request) -> web.Response:
        raise ZeroDivisionError("ours")

    numbers = iter(range(10**6))
    stream = EventStream(lambda: str(next(numbers)).encode())
    port = pick_free(1)[0]
    pages = {"/page": page, "/broken": broken, "/events": stream.answer}
    runner = await serve_pages(port, pages, variables="K2_X")
    try:
        yield Server(port, runner, stream)
    finally:
        await runner.cleanup()


def with_server(story: Callable[[Server], Awaitable[None]]) -> None:
    async def run() -> None:
        async with serving() as server:
            await story(server)

    asyncio.run(run())


async def until(condition: Callable[[], bool], *, within_s: float = 5.0) -> None:
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 any condition, not only an event
            await asyncio.sleep(0.01)


def gone(reader: asyncio.StreamReader) -> bool:
    """Say whether the other end has ended the connection."""
    return reader.at_eof() or reader.exception() is not None


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer else 0


def test_a_page_is_answered_once_per_connection_with_the_headers_that_keep_it_safe() -> None:
    async def story(server: Server) -> None:
        answer = await server.say(ASK + ASK)
        head, _, body = answer.partition(b"\r\n\r\n")
        assert body == b"here"
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:])
        assert headers["Content-Security-Policy"] == "default-src 'none'; frame-ancestors 'none'"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["Cache-Control"] == "no-store"
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert headers["Connection"] == "close"
        assert headers["Server"] == "k2"

    with_server(story)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
@pytest.mark.parametrize("path", ["/page", "/nothing"])
def test_only_reading_is_allowed(method: str, path: str) -> None:
    async def story(server: Server) -> None:
        answer = await server.say(f"{method} {path} HTTP/1.1\r\nHost: k2\r\n\r\n".encode())
        assert status_of(answer) == 405
        assert b"\r\nAllow: GET, HEAD\r\n" in answer

    with_server(story)


def test_head_is_answered_without_a_body() -> None:
    async def story(server: Server) -> None:
        answer = await server.say(b"HEAD /page HTTP/1.1\r\nHost: k2\r\n\r\n")
        assert status_of(answer) == 200
        assert answer.endswith(b"\r\n\r\n")
        events_head = await server.say(b"HEAD /events HTTP/1.1\r\nHost: k2\r\n\r\n")
        assert status_of(events_head) == 200

    with_server(story)


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/page/",
        "/../../etc/passwd",
        "/..%2f..%2fetc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "//etc/passwd",
        "/page%00.html",
        "/status.html",
        "/static/status.js",
        "/%ff%fe",
        "http://elsewhere/etc/passwd",
        "/" + "a" * 7000,
    ],
)
def test_no_path_leads_to_a_file(path: str) -> None:
    async def story(server: Server) -> None:
        answer = await server.say(f"GET {path} HTTP/1.1\r\nHost: k2\r\n\r\n".encode())
        assert status_of(answer) in (400, 404), answer[:200]
        assert b"root:" not in answer

    with_server(story)


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET /page HTTP/1.1\r\nHost: k2\r\nX-Big: " + b"a" * 100_000 + b"\r\n\r\n",
        b"GET /page HTTP/1.1\r\n" + b"X-Many: 1\r\n" * 10_000 + b"\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: k2\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + os.urandom(400),
        b"complete nonsense\r\n\r\n",
        b"GET /page HTTP/9.9\r\n\r\n",
        b"GET /page HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
        b"GET /page HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
)
def test_what_is_too_large_or_no_request_is_refused_and_is_no_news(
    request_bytes: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async def story(server: Server) -> None:
        answer = await server.say(request_bytes)
        assert status_of(answer) in (0, 400, 431, 505), answer[:200]
        assert status_of(await server.say(ASK)) == 200
        await until(lambda: server.door.open == 0)

    with caplog.at_level(logging.INFO):
        with_server(story)
    assert caplog.records == []


def test_a_bug_of_ours_is_told_in_the_log_and_not_to_the_client(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def story(server: Server) -> None:
        answer = await server.say(b"GET /broken HTTP/1.1\r\nHost: k2\r\n\r\n")
        assert status_of(answer) == 500
        assert b"ZeroDivisionError" not in answer

    with_server(story)
    assert any(record.exc_info for record in caplog.records)


def test_a_client_that_sends_slowly_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "REQUEST_MAX_S", 0.3)

    async def story(server: Server) -> None:
        reader, writer = await server.connect()
        began_s = asyncio.get_running_loop().time()
        writer.write(b"GET /page HTTP/1.1\r\nX-Slow: ")
        while not gone(reader):
            writer.write(b"x")
            await asyncio.sleep(0.02)
        assert asyncio.get_running_loop().time() - began_s < 5
        assert server.door.open == 0
        assert status_of(await server.say(ASK)) == 200

    with_server(story)


def test_idle_connections_are_bounded_and_never_keep_anybody_out() -> None:
    async def story(server: Server) -> None:
        idle = [await server.connect() for _ in range(3 * http.CLIENTS_MAX)]
        assert status_of(await server.say(ASK)) == 200
        assert server.door.open <= http.CLIENTS_MAX
        await until(lambda: gone(idle[0][0]))
        assert not gone(idle[-1][0])
        for _, writer in idle:
            writer.transport.abort()
        await until(lambda: server.door.open == 0)

    with_server(story)


def test_nothing_stays_open_after_many_clients_of_every_kind() -> None:
    async def story(server: Server) -> None:
        async def rude() -> None:
            _, writer = await server.connect()
            writer.write(ASK[:10])
            await writer.drain()
            writer.transport.abort()

        await server.say(ASK)
        before = open_files()
        for _ in range(20):
            await asyncio.gather(rude(), server.say(ASK), server.say(b"junk\r\n\r\n"))
        await until(lambda: server.door.open == 0)
        await until(lambda: open_files() <= before)

    with_server(story)


async def next_event(reader: asyncio.StreamReader) -> bytes:
    while True:
        async with asyncio.timeout(5):
            line = await reader.readline()
        assert line, "the stream ended"
        if line.startswith(b"data: "):
            return line.removeprefix(b"data: ").strip()


def test_events_go_on_for_longer_than_a_request_may_take(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "REQUEST_MAX_S", 0.2)
    monkeypatch.setattr(events, "EVERY_S", 0.1)

    async def story(server: Server) -> None:
        reader, writer = await server.connect()
        writer.write(b"GET /events HTTP/1.1\r\nHost: k2\r\n\r\n")
        found = [int(await next_event(reader)) for _ in range(6)]
        assert found == sorted(set(found))
        assert server.stream.clients == 1
        writer.transport.abort()
        await until(lambda: server.stream.clients == 0)
        await until(lambda: server.door.open == 0)

    with_server(story)


def test_event_clients_are_bounded_and_one_that_leaves_makes_room() -> None:
    async def story(server: Server) -> None:
        ask = b"GET /events HTTP/1.1\r\nHost: k2\r\n\r\n"
        clients = []
        for _ in range(events.CLIENTS_MAX):
            reader, writer = await server.connect()
            writer.write(ask)
            await next_event(reader)
            clients.append(writer)
        refused = await server.say(ask)
        assert status_of(refused) == 503
        assert b"\r\nRetry-After: " in refused
        clients[0].transport.abort()
        await until(lambda: server.stream.clients < events.CLIENTS_MAX)
        reader, writer = await server.connect()
        writer.write(ask)
        await next_event(reader)
        for one in (*clients, writer):
            one.transport.abort()

    with_server(story)


def test_a_client_that_does_not_take_its_events_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "EVERY_S", 0.001)
    monkeypatch.setattr(events, "WRITE_MAX_S", 0.2)

    async def story(server: Server) -> None:
        server.stream._value = lambda: b"x" * 100_000
        _, writer = await server.connect()
        writer.write(b"GET /events HTTP/1.1\r\nHost: k2\r\n\r\n")
        await until(lambda: server.stream.clients == 1)
        writer.transport.pause_reading()  # type: ignore[attr-defined]  # a socket's transport has it
        await until(lambda: server.stream.clients == 0, within_s=10)
        await until(lambda: server.door.open == 0)
        writer.transport.abort()

    with_server(story)


def test_the_end_of_the_server_ends_its_streams_at_once() -> None:
    async def run() -> None:
        async with serving() as server:
            reader, writer = await server.connect()
            writer.write(b"GET /events HTTP/1.1\r\nHost: k2\r\n\r\n")
            await next_event(reader)
            began_s = asyncio.get_running_loop().time()
        assert asyncio.get_running_loop().time() - began_s < 0.9
        assert server.stream.clients == 0
        writer.transport.abort()

    asyncio.run(run())


def test_a_taken_port_names_the_variable_that_chooses_another() -> None:
    async def story(server: Server) -> None:
        with pytest.raises(StopError, match=rf"port {server.port} for /a, /b .*K2_Y"):
            await serve_pages(server.port, {"/a": _never, "/b": _never}, variables="K2_Y")

    with_server(story)


async def _never(_request: web.Request) -> web.Response:
    raise AssertionError


def test_the_status_page_is_one_piece_and_may_run_only_what_is_in_it() -> None:
    page = status_page()
    body = page.body.decode()
    assert "/*style*/" not in body
    assert "/*script*/" not in body
    outside = re.findall(r"""(?:src|href)=["'](?!data:|/|#)[^"']*""", body)
    assert outside == []
    assert "http" not in body.replace("http://www.w3.org/2000/svg", "")
    assert "unsafe" not in page.policy
    assert page.policy.count("'sha256-") == 2
    assert page.policy.startswith("default-src 'none'; ")
    assert not re.search(r"""\s(?:style|on[a-z]+)=["']""", body)
