"""Confluent's API at the root: ``/subjects`` in, ``/apis/ccompat/v7/subjects`` asked.

Production clients, the runbooks and ``curl`` know Confluent's own registry, which serves at the
root. Paths of Apicurio itself (``/apis/...``) pass unchanged.
"""

import json
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import aiohttp
from aiohttp import web
from yarl import URL

from k2.errors import StopError
from k2.local.ports import LOOPBACK

# Belong to one connection, not to the message (RFC 9110, section 7.6.1), or are computed anew.
_HOP_HEADERS = frozenset(
    {
        "connection",
        "content-length",
        "host",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",  # codespell:ignore te
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
_PASSED_PREFIXES = ("/apis/", "/health/", "/ui/", "/api-specifications/", "/resources/")
_CHUNK_BYTES = 64 * 1024
_BACKEND = web.AppKey("backend", str)
_PREFIX = web.AppKey("prefix", str)
_HTTP = web.AppKey("http", aiohttp.ClientSession)


class RegistryProxy:
    """The server at the port that users know."""

    def __init__(self, *, port: int, backend: str, prefix: str) -> None:
        """Serve ``backend``'s paths below ``prefix`` at the root of ``port``, on loopback."""
        self._port = port
        self._runner = web.AppRunner(
            registry_application(backend=backend, prefix=prefix),
            access_log=None,
            shutdown_timeout=1.0,
        )

    async def start(self) -> None:
        """Listen.

        Raises:
            StopError: If the port cannot be bound.
        """
        await self._runner.setup()
        site = web.TCPSite(self._runner, LOOPBACK, self._port)
        try:
            await site.start()
        except OSError as error:
            await self._runner.cleanup()
            raise StopError(f"cannot listen on port {self._port}: {error}") from error

    async def stop(self) -> None:
        """Close the port; requests under way have a second to end."""
        await self._runner.cleanup()


def registry_application(*, backend: str, prefix: str) -> web.Application:
    """Return the proxy as an application, for a server of any kind."""
    application = web.Application(client_max_size=64 * 1024 * 1024)
    application[_BACKEND] = backend
    application[_PREFIX] = prefix
    application.cleanup_ctx.append(_http_session)
    application.router.add_route("*", "/{path:.*}", _forward)
    return application


def backend_path(raw_path: str, *, prefix: str) -> str:
    """Return the registry's own path for one that a client asked for, still percent-encoded."""
    return raw_path if raw_path.startswith(_PASSED_PREFIXES) else prefix + raw_path


async def _http_session(application: web.Application) -> AsyncIterator[None]:
    # No timeout of the proxy's own: the client has one, and closing its connection ends ours.
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=5.0)
    async with aiohttp.ClientSession(timeout=timeout, auto_decompress=False) as http:
        application[_HTTP] = http
        yield


async def _forward(request: web.Request) -> web.StreamResponse:
    parts = urlsplit(request.raw_path)
    if parts.path in {"", "/"} and request.method in {"GET", "HEAD"}:
        # Confluent's registry answers so, and some clients ask it whether it is alive.
        return web.json_response({})
    path = backend_path(parts.path, prefix=request.app[_PREFIX])
    query = f"?{parts.query}" if parts.query else ""
    # Encoded by the client already, and passed on as it is: a subject name may hold anything.
    url = URL(f"{request.app[_BACKEND]}{path}{query}", encoded=True)
    headers = [(n, v) for n, v in request.headers.items() if n.lower() not in _HOP_HEADERS]
    response: web.StreamResponse | None = None
    try:
        async with request.app[_HTTP].request(
            request.method,
            url,
            headers=headers,
            data=request.content.iter_chunked(_CHUNK_BYTES) if request.can_read_body else None,
            allow_redirects=False,
        ) as answer:
            response = web.StreamResponse(status=answer.status, reason=answer.reason)
            for name, value in answer.headers.items():
                if name.lower() not in _HOP_HEADERS:
                    response.headers.add(name, value)
            response.content_length = answer.content_length
            await response.prepare(request)
            async for chunk in answer.content.iter_chunked(_CHUNK_BYTES):
                await response.write(chunk)
            await response.write_eof()
            return response
    except (aiohttp.ClientError, TimeoutError) as error:
        if response is not None and response.prepared:
            # Half an answer is out: cutting the connection is the only honest end.
            raise
        return _unreachable(error)


def _unreachable(error: BaseException) -> web.Response:
    body = {
        "error_code": 50202,
        "message": f"the schema registry behind this proxy is not reachable: {error}",
    }
    return web.Response(
        status=502,
        body=json.dumps(body).encode(),
        content_type="application/vnd.schemaregistry.v1+json",
    )
