"""The registry behind TLS and a login, on a real socket."""

import base64
import ssl
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import trustme
from pydantic import SecretStr

from k2.errors import RetryError
from k2.kafka.registry import Registry
from unit.threads import served

PASSWORD = "canary-7f3a: ü"  # pragma: allowlist secret
SCHEMA = b'{"id": 1, "version": 1, "schema": "{}"}'


class Guarded(ThreadingHTTPServer):
    """Answers whoever logs in; keeps what it was sent."""

    def __init__(self, context: ssl.SSLContext) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.socket = context.wrap_socket(self.socket, server_side=True)
        self.redirect = ""
        self.sent: list[str | None] = []

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, *_: object) -> None:
        """Say nothing of a handshake that fails."""


class _Handler(BaseHTTPRequestHandler):
    server: Guarded

    def do_GET(self) -> None:
        login = self.headers.get("Authorization")
        self.server.sent.append(login)
        expected = "Basic " + base64.b64encode(f"k2:{PASSWORD}".encode()).decode()
        body = SCHEMA if login == expected else b'{"message": "who are you?"}'
        self.send_response(302 if self.server.redirect else 200 if body is SCHEMA else 401)
        if self.server.redirect:
            self.send_header("Location", self.server.redirect)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


AUTHORITY = trustme.CA()


@pytest.fixture
def ca(tmp_path: Path) -> Path:
    file = tmp_path / "ca.pem"
    AUTHORITY.cert_pem.write_to_path(file)
    return file


def _guarded() -> Iterator[Guarded]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    AUTHORITY.issue_cert("127.0.0.1").configure_cert(context)
    server = Guarded(context)
    with served(server):
        yield server


guarded = pytest.fixture(_guarded)
other = pytest.fixture(_guarded)


def test_a_login_over_tls_lets_in(guarded: Guarded, ca: Path) -> None:
    registry = Registry(guarded.url, username="k2", password=SecretStr(PASSWORD), ca=ca)
    found = registry.latest("t-value")
    assert found is not None
    assert found.schema_id == 1


def test_a_wrong_password_is_named_by_its_variables_and_not_shown(
    guarded: Guarded, ca: Path
) -> None:
    registry = Registry(guarded.url, username="k2", password=SecretStr("canary-wrong"), ca=ca)
    with pytest.raises(RetryError, match=r"401: who are you.*SCHEMA_REGISTRY_PASSWORD") as caught:
        registry.latest("t-value")
    assert "canary" not in str(caught.value) + repr(registry.__dict__)


def test_a_certificate_of_an_unknown_authority_is_not_believed(guarded: Guarded) -> None:
    registry = Registry(guarded.url, username="k2", password=SecretStr(PASSWORD))
    with pytest.raises(RetryError, match="CERTIFICATE_VERIFY_FAILED"):
        registry.latest("t-value")
    assert guarded.sent == []


def test_a_file_without_certificates_is_named(guarded: Guarded, tmp_path: Path) -> None:
    empty = tmp_path / "empty.pem"
    empty.touch()
    with pytest.raises(RetryError, match="SCHEMA_REGISTRY_CA_LOCATION"):
        Registry(guarded.url, ca=empty).latest("t-value")


def test_a_login_is_not_taken_along_to_another_address(
    guarded: Guarded, other: Guarded, ca: Path
) -> None:
    guarded.redirect = f"{other.url}/elsewhere"
    registry = Registry(guarded.url, username="k2", password=SecretStr(PASSWORD), ca=ca)
    with pytest.raises(RetryError, match="401"):
        registry.latest("t-value")
    assert guarded.sent != [None]
    assert other.sent == [None]
