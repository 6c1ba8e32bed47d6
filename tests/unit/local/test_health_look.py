import json
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from k2.local import health_look
from k2.local.health_look import HealthLook

DEADLINE_S = 10.0


class Capture:
    """A ``/health`` that says what a test wants."""

    def __init__(self) -> None:
        self.body = b"{}"
        self.status = 200
        capture = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(capture.status)
                self.end_headers()
                self.wfile.write(capture.body)

            def log_message(self, *_args: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        self._thread = Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def says(self, *texts: str, status: int = 200) -> None:
        problems = [{"level": "bad", "what": "x", "text": text} for text in texts]
        self.status, self.body = status, json.dumps({"problems": problems}).encode()

    def end(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def capture() -> Iterator[Capture]:
    made = Capture()
    yield made
    made.end()


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health_look, "LOOK_EVERY_S", 0.02)
    monkeypatch.setattr(health_look, "UNANSWERED_S", 0.2)
    monkeypatch.setattr(health_look, "FIRST_ANSWER_S", 0.5)


def until(condition: Callable[[], bool]) -> None:
    end_s = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end_s
        time.sleep(0.01)


def test_what_the_capture_says_is_heard_also_when_it_is_unhealthy(capture: Capture) -> None:
    capture.says("Kafka is away.", "a hole", status=503)
    look = HealthLook(capture.port)
    look.start()
    until(lambda: look.problems == ["Kafka is away.", "a hole"])
    capture.says()
    until(lambda: look.problems == [])
    look.stop()


def test_one_that_answers_no_more_is_news(capture: Capture) -> None:
    capture.says("a hole")
    look = HealthLook(capture.port)
    look.start()
    until(lambda: look.problems == ["a hole"])
    capture.body = b"not what it should be"
    until(lambda: look.problems[0].startswith("k2 stream has not answered at http://127.0.0.1:"))
    capture.says()
    until(lambda: look.problems == [])
    look.stop()


def test_nobody_is_asked_where_health_is_turned_off() -> None:
    look = HealthLook(0)
    look.start()
    look.stop()
    assert look.problems == []
