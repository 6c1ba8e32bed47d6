"""The shared stack's registry behind TLS and a login, as a proxy puts it there."""

import base64
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from unit.threads import served


class _Door(ThreadingHTTPServer):
    def __init__(self, behind: str, login: str, certificate: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        self.socket = context.wrap_socket(self.socket, server_side=True)
        self.behind = behind
        self.login = "Basic " + base64.b64encode(login.encode()).decode()

    def handle_error(self, *_: object) -> None:
        """Say nothing of a handshake that fails."""


class _Handler(BaseHTTPRequestHandler):
    server: _Door

    def do_GET(self) -> None:
        self._pass_on(None)

    def do_POST(self) -> None:
        self._pass_on(self.rfile.read(int(self.headers["Content-Length"])))

    def _pass_on(self, body: bytes | None) -> None:
        status, answer = 401, b'{"message": "who are you?"}'
        if self.headers.get("Authorization") == self.server.login:
            kept = {"Content-Type": self.headers.get("Content-Type", "application/json")}
            request = urllib.request.Request(self.server.behind + self.path, body, kept)
            try:
                with urllib.request.urlopen(request, timeout=10) as reply:
                    status, answer = reply.status, reply.read()
            except urllib.error.HTTPError as exc:
                status, answer = exc.code, exc.read()
        self.send_response(status)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def secure_registry(behind: str, *, login: str, certificate: Path) -> Iterator[str]:
    """Serve for as long as the block lasts; yield the address."""
    with served(_Door(behind, login, certificate)) as port:
        yield f"https://127.0.0.1:{port}"
