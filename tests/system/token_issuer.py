"""Somebody who gives unsigned tokens to whoever knows the secret (OpenID Connect's endpoint)."""

import base64
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from unit.threads import served

LIFETIME_S = 600


class _Issuer(ThreadingHTTPServer):
    login: str


class _Handler(BaseHTTPRequestHandler):
    server: _Issuer

    def do_POST(self) -> None:
        now_s = int(time.time())
        claims = {"sub": "k2", "iat": now_s, "exp": now_s + LIFETIME_S}
        token = f"{_part({'alg': 'none'})}.{_part(claims)}."
        known = self.headers.get("Authorization") == self.server.login
        told = {"access_token": token} if known else {"error": "invalid_client"}
        body = json.dumps(told).encode()
        self.send_response(200 if known else 401)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def _part(claims: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()


@contextmanager
def token_issuer(*, login: str) -> Iterator[str]:
    """Serve for as long as the block lasts; yield the endpoint."""
    issuer = _Issuer(("127.0.0.1", 0), _Handler)
    issuer.login = "Basic " + base64.b64encode(login.encode()).decode()
    with served(issuer) as port:
        yield f"http://127.0.0.1:{port}/token"
