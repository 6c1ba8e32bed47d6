import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from yarl import URL

from k2.errors import StopError
from k2.local.ports import pick_free
from k2.local.registry_proxy import RegistryProxy, backend_path, registry_application

PREFIX = "/apis/ccompat/v7"
SCHEMA_REGISTRY_JSON = "application/vnd.schemaregistry.v1+json"


@dataclass
class Backend:
    """Records what it is asked and answers as told."""

    status: int = 200
    body: bytes = b"[]"
    content_type: str = "application/json"
    asked: list[tuple[str, str, bytes, dict[str, str]]] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.asked.append((request.method, request.raw_path, await request.read(), headers))
        response = web.StreamResponse(
            status=self.status, headers={"Content-Type": self.content_type, "X-Extra": "kept"}
        )
        await response.prepare(request)
        for start in range(0, len(self.body), 50_000):
            await response.write(self.body[start : start + 50_000])
        await response.write_eof()
        return response


def through_proxy(
    backend: Backend, use: Callable[[aiohttp.ClientSession, str], Awaitable[Any]]
) -> Any:
    async def run() -> Any:
        behind = web.Application(client_max_size=10_000_000)
        behind.router.add_route("*", "/{path:.*}", backend.handle)
        async with TestServer(behind) as server:
            application = registry_application(
                backend=str(server.make_url("")).rstrip("/"), prefix=PREFIX
            )
            async with TestServer(application) as proxy, aiohttp.ClientSession() as http:
                return await use(http, str(proxy.make_url("")).rstrip("/"))

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("asked", "forwarded"),
    [
        ("/subjects", "/apis/ccompat/v7/subjects"),
        ("/subjects/a%2Fb-value/versions", "/apis/ccompat/v7/subjects/a%2Fb-value/versions"),
        ("/config", "/apis/ccompat/v7/config"),
        ("/apis/registry/v3/system/info", "/apis/registry/v3/system/info"),
        ("/apis/ccompat/v7/subjects", "/apis/ccompat/v7/subjects"),
        ("/health/ready", "/health/ready"),
        ("/apiserver", "/apis/ccompat/v7/apiserver"),
    ],
)
def test_paths_at_the_root_are_confluents_and_apicurios_own_pass(
    asked: str, forwarded: str
) -> None:
    assert backend_path(asked, prefix=PREFIX) == forwarded


def test_method_body_query_and_content_type_reach_the_registry() -> None:
    backend = Backend()
    asked = "/subjects/a%2Fb%7Ec/versions?normalize=true&x=%20y+z"

    async def use(http: aiohttp.ClientSession, root: str) -> None:
        async with http.post(
            URL(f"{root}{asked}", encoded=True),
            data=b'{"schema": "\\"int\\""}',
            headers={"Content-Type": SCHEMA_REGISTRY_JSON},
        ) as response:
            await response.read()

    through_proxy(backend, use)

    method, path, body, headers = backend.asked[0]
    assert method == "POST"
    assert path == f"{PREFIX}{asked}"
    assert body == b'{"schema": "\\"int\\""}'
    assert headers["content-type"] == SCHEMA_REGISTRY_JSON


@pytest.mark.parametrize("status", [200, 404, 409, 422, 500])
def test_status_content_type_and_body_come_back_unchanged(status: int) -> None:
    backend = Backend(
        status=status, body=b'{"error_code": 40901}', content_type=SCHEMA_REGISTRY_JSON
    )

    async def use(http: aiohttp.ClientSession, root: str) -> tuple[int, str, bytes, str]:
        async with http.get(f"{root}/subjects") as response:
            headers = response.headers
            return (
                response.status,
                headers["Content-Type"],
                await response.read(),
                headers["X-Extra"],
            )

    assert through_proxy(backend, use) == (status, SCHEMA_REGISTRY_JSON, backend.body, "kept")


def test_a_large_body_passes_both_ways() -> None:
    large = b"x" * 3_000_000
    backend = Backend(body=large)

    async def use(http: aiohttp.ClientSession, root: str) -> bytes:
        async with http.post(f"{root}/subjects/s/versions", data=large) as response:
            return await response.read()

    assert through_proxy(backend, use) == large
    assert backend.asked[0][2] == large


def test_the_root_itself_answers_as_confluents_does() -> None:
    async def use(http: aiohttp.ClientSession, root: str) -> tuple[int, Any]:
        async with http.get(f"{root}/") as response:
            return response.status, await response.json()

    assert through_proxy(Backend(), use) == (200, {})


def test_a_registry_that_is_down_is_a_502_that_clients_can_read() -> None:
    async def run() -> tuple[int, str, Any]:
        (nobody,) = pick_free(1)
        application = registry_application(backend=f"http://127.0.0.1:{nobody}", prefix=PREFIX)
        async with (
            TestServer(application) as proxy,
            aiohttp.ClientSession() as http,
            http.get(proxy.make_url("/subjects")) as response,
        ):
            return response.status, response.content_type, await response.json(content_type=None)

    status, content_type, body = asyncio.run(run())

    assert status == 502
    assert content_type == SCHEMA_REGISTRY_JSON
    assert body["error_code"] == 50202
    assert "not reachable" in body["message"]


def test_a_port_that_cannot_be_bound_is_said() -> None:
    async def run() -> None:
        (port,) = pick_free(1)
        first = RegistryProxy(port=port, backend="http://127.0.0.1:1", prefix=PREFIX)
        second = RegistryProxy(port=port, backend="http://127.0.0.1:1", prefix=PREFIX)
        await first.start()
        try:
            with pytest.raises(StopError, match=str(port)):
                await second.start()
        finally:
            await first.stop()

    asyncio.run(run())
