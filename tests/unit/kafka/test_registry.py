import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from k2.errors import RetryError, StopError
from k2.kafka.registry import Registered, Registry
from unit.threads import served

SUBJECT = "a topic/value"


class Pretended(ThreadingHTTPServer):
    """A registry that gives prepared answers and keeps what it was asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer: tuple[int, bytes] = (200, b"{}")
        self.asked: list[tuple[str, str, Any]] = []


class _Handler(BaseHTTPRequestHandler):
    server: Pretended

    def do_GET(self) -> None:
        self._reply(None)

    def do_POST(self) -> None:
        self._reply(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def _reply(self, body: Any) -> None:
        self.server.asked.append((self.command, self.path, body))
        status, text = self.server.answer
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Say nothing."""


@pytest.fixture
def pretended() -> Iterator[Pretended]:
    server = Pretended()
    with served(server):
        yield server


def _registry(pretended: Pretended) -> Registry:
    return Registry(f"http://127.0.0.1:{pretended.server_address[1]}/")


def test_registering_gives_the_schemas_id(pretended: Pretended) -> None:
    pretended.answer = (200, b'{"id": 7}')
    assert _registry(pretended).register(SUBJECT, '{"type":"long"}') == 7
    assert pretended.asked == [
        (
            "POST",
            "/subjects/a%20topic%2Fvalue/versions",
            {"schema": '{"type":"long"}', "schemaType": "AVRO"},
        )
    ]


def test_an_incompatible_schema_stops_with_the_registrys_reason(pretended: Pretended) -> None:
    pretended.answer = (409, b'{"error_code": 409, "message": "READER_FIELD_MISSING"}')
    with pytest.raises(StopError, match=r"READER_FIELD_MISSING.*k2 schema show"):
        _registry(pretended).register(SUBJECT, "{}")


def test_the_latest_version_is_told_whole(pretended: Pretended) -> None:
    pretended.answer = (200, b'{"subject": "s", "id": 3, "version": 2, "schema": "{}"}')
    assert _registry(pretended).latest(SUBJECT) == Registered(SUBJECT, 3, 2, "{}")
    assert pretended.asked[0][:2] == ("GET", "/subjects/a%20topic%2Fvalue/versions/latest")


def test_what_the_registry_does_not_know_is_no_failure(pretended: Pretended) -> None:
    pretended.answer = (404, b'{"error_code": 40401, "message": "Subject not found"}')
    registry = _registry(pretended)
    assert registry.latest(SUBJECT) is None
    assert registry.schema_text(99) is None
    assert registry.compatible(SUBJECT, "{}"), "nothing to be incompatible with"


def test_compatibility_is_what_the_registry_says(pretended: Pretended) -> None:
    registry = _registry(pretended)
    for said in (True, False):
        pretended.answer = (200, json.dumps({"is_compatible": said}).encode())
        assert registry.compatible(SUBJECT, "{}") is said
    assert pretended.asked[0][1] == "/compatibility/subjects/a%20topic%2Fvalue/versions/latest"


def test_a_schema_is_found_by_the_id_records_carry(pretended: Pretended) -> None:
    pretended.answer = (200, b'{"schema": "{\\"type\\":\\"long\\"}"}')
    assert _registry(pretended).schema_text(3) == '{"type":"long"}'
    assert pretended.asked == [("GET", "/schemas/ids/3", None)]


@pytest.mark.parametrize(
    "answer",
    [
        (500, b'{"message": "database away"}'),
        (503, b"<html>busy</html>"),
        (404, b"404: Not Found"),
        (404, b'{"detail": "Not Found"}'),
        (200, b"<html>a proxy's page</html>"),
        (200, b"[]"),
        (200, b"{}"),
    ],
)
def test_anything_else_is_to_be_tried_again(
    pretended: Pretended, answer: tuple[int, bytes]
) -> None:
    pretended.answer = answer
    registry = _registry(pretended)
    for call in (lambda: registry.register(SUBJECT, "{}"), lambda: registry.latest(SUBJECT)):
        with pytest.raises(RetryError, match="schema registry at"):
            call()


def test_a_registry_that_is_away_is_to_be_tried_again() -> None:
    with pytest.raises(RetryError, match="cannot be reached"):
        Registry("http://127.0.0.1:1").latest(SUBJECT)


@contextmanager
def _says(answer: bytes) -> Iterator[str]:
    """Have somebody send these bytes to whoever connects once, and hang up; yield the address."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        thread.join()


@pytest.mark.parametrize(
    "answer",
    [
        b'HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n{"schema": "...',
        b'HTTP/1.1 500 Oh\r\nContent-Length: 5000\r\n\r\n{"message": "...',
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"",
        b"HTTP/1.1 200 OK\r\n\r\n" + b"[" * 100_000,
    ],
)
@pytest.mark.parametrize(
    "call",
    [
        lambda registry: registry.compatible(SUBJECT, "{}"),
        lambda registry: registry.schema_text(1),
    ],
)
def test_an_answer_that_breaks_off_or_is_none_is_to_be_tried_again(
    answer: bytes, call: Callable[[Registry], object]
) -> None:
    with _says(answer) as url, pytest.raises(RetryError, match="schema registry at") as caught:
        call(Registry(url))
    assert len(str(caught.value).splitlines()) == 1
