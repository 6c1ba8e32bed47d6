"""``k2 healthcheck``: an answer is good only when it is ours and says so."""

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from k2.cli.healthcheck import main
from unit.threads import served


class Pretended(ThreadingHTTPServer):
    """Somebody who gives a prepared answer to every question."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.body = b""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Pretended

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def somebody() -> Iterator[Pretended]:
    server = Pretended()
    with served(server):
        yield server


HEALTH: list[str] = []
READY = ["--ready"]
LIVE = ["--live"]


@pytest.mark.parametrize(
    ("words", "body"),
    [
        (HEALTH, b"<html>nginx</html>"),
        (HEALTH, b"[]"),
        (HEALTH, b"{}"),
        (HEALTH, b'{"status":"DOWN"}'),
        (HEALTH, b'{"status":"UP","problems":["x"]}'),
        (HEALTH, b'{"status":["healthy"]}'),
        (HEALTH, b'{"ready":true}'),
        (HEALTH, b"[" * 100_000),
        (HEALTH, b"\xff\xfe"),
        (READY, b'{"status":"healthy"}'),
        (READY, b'{"ready":"true"}'),
        (READY, b"<html>"),
        (LIVE, b'{"live":1}'),
        (LIVE, b"{}"),
    ],
)
def test_somebody_elses_answer_is_not_good(
    somebody: Pretended, capsys: pytest.CaptureFixture[str], words: list[str], body: bytes
) -> None:
    somebody.body = body
    assert main([*words, "--url", somebody.url]) == 1
    said = capsys.readouterr().out
    assert said.startswith("an answer that is not ours (")
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "body", "code", "line"),
    [
        (HEALTH, b'{"status":"healthy","problems":[]}', 0, "healthy"),
        (HEALTH, b'{"status":"degraded","problems":[{"text":"Slow."}]}', 0, "degraded: Slow."),
        (HEALTH, b'{"status":"unhealthy","problems":["x"]}', 1, "unhealthy"),
        (HEALTH, b'{"status":"healthy","problems":7}', 0, "healthy"),
        (READY, b'{"ready":true,"because":[]}', 0, "ready"),
        (READY, b'{"ready":false,"because":["starting"]}', 1, "not ready: starting"),
        (READY, b'{"ready":false}', 1, "not ready"),
        (READY, b'{"ready":false,"because":7}', 1, "not ready"),
        (LIVE, b'{"live":true}', 0, "live"),
    ],
)
def test_our_answer_is_as_good_as_it_says(
    somebody: Pretended,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    body: bytes,
    code: int,
    line: str,
) -> None:
    somebody.body = body
    assert main([*words, "--url", somebody.url]) == code
    assert capsys.readouterr().out.startswith(f"{line} (/")


@pytest.mark.parametrize("url", ["http://[::1", "http://[x]", "::", "http://127.0.0.1:port"])
def test_an_address_that_cannot_be_is_no_answer(
    capsys: pytest.CaptureFixture[str], url: str
) -> None:
    assert main(["--url", url]) == 1
    assert capsys.readouterr().out.startswith(f"no answer from {url}/health: ")


def test_who_speaks_no_http_is_no_answer_and_one_line(
    capsys: pytest.CaptureFixture[str], stranger: str
) -> None:
    assert main(["--url", stranger]) == 1
    said = capsys.readouterr().out
    assert said.endswith("/health: SSH-2.0-OpenSSH_9.6\n")
    assert len(said.splitlines()) == 1
