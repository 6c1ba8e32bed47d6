"""Looks at a registry and an archive that are really there, slow, wrong or away."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest
from aiohttp import web

from k2.ingestion import looks
from k2.ingestion.health import ArchiveHealth, TableHealth
from k2.ingestion.host import MACHINE
from k2.ingestion.looks import Dependency, Lake, watch_archive, watch_registry
from k2.kafka.registry import Registry
from k2.local.ports import pick_free
from unit.ingestion.pretended_status import ARCHIVE

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Site:
    """One server on one port that can come and go."""

    def __init__(self) -> None:
        self.port = pick_free(1)[0]
        self.asked = 0
        self._answer: Answer | None = None
        self._runner: web.AppRunner | None = None

    async def answer(self, answer: Answer | None) -> None:
        """Answer so from now on; None: be away."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
        if answer is None:
            return

        async def counted(request: web.Request) -> web.StreamResponse:
            self.asked += 1
            return await answer(request)

        app = web.Application()
        app.router.add_get("/{path:.*}", counted)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port, shutdown_timeout=0.1).start()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looks, "REGISTRY_EVERY_S", 0.05)
    monkeypatch.setattr(looks, "ARCHIVE_EVERY_S", 0.05)
    monkeypatch.setattr(looks, "HTTP_DEADLINE_S", 0.3)


async def until(condition: Callable[[], Any], *, within_s: float = 5.0) -> None:
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 any condition, not only an event
            await asyncio.sleep(0.01)


def replies(body: bytes, status: int = 200) -> Answer:
    async def answer(_request: web.Request) -> web.Response:
        return web.Response(body=body, status=status)

    return answer


async def hangs(_request: web.Request) -> web.Response:
    await asyncio.sleep(3600)
    raise AssertionError


def watching(watch: Callable[[Site], Any], story: Callable[[Site], Awaitable[None]]) -> None:
    async def run() -> None:
        site = Site()
        task = asyncio.ensure_future(watch(site))
        try:
            await story(site)
            assert not task.done(), task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await site.answer(None)

    asyncio.run(run())


def test_a_registry_comes_goes_hangs_and_comes_back() -> None:
    registry = Dependency("http://registry", host=MACHINE)

    async def story(site: Site) -> None:
        assert registry.reachable is None
        await until(lambda: registry.reachable is False)
        assert (registry.health().problem, registry.was_reachable) == ("cannot be reached", False)
        await site.answer(replies(b"[]"))
        await until(lambda: registry.reachable)
        await site.answer(replies(b"nothing here", 404))
        asked = site.asked
        await until(lambda: site.asked > asked + 2)
        assert registry.reachable  # whatever it says, it is there
        await site.answer(replies(b"who are you?", 401))
        await until(lambda: "the login is refused" in registry.health().problem)
        assert registry.reachable is False
        await site.answer(replies(b"", 503))
        await until(lambda: registry.health().problem == "HTTP 503")
        await site.answer(hangs)
        await until(lambda: registry.health().problem == "no answer")
        assert registry.was_reachable
        await site.answer(replies(b"[]"))
        await until(lambda: registry.reachable)

    watching(
        lambda site: watch_registry(Registry(f"http://127.0.0.1:{site.port}"), registry), story
    )


def test_an_answer_that_comes_in_pieces_is_read_whole() -> None:
    lakes: list[Lake] = []

    async def in_pieces(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        body = msgspec.json.encode(ARCHIVE)
        await response.write(body[:100])
        await asyncio.sleep(0.05)
        await response.write(body[100:])
        return response

    def watch(site: Site) -> Any:
        lakes.append(Lake(site.port, host=MACHINE))
        return watch_archive(lakes[0])

    async def story(site: Site) -> None:
        await site.answer(in_pieces)
        await until(lambda: site.asked > 2)
        assert lakes[0].archive == ARCHIVE

    watching(watch, story)


def test_an_archive_is_shown_while_it_answers_whatever_else_comes() -> None:
    lakes: list[Lake] = []

    def watch(site: Site) -> Any:
        lakes.append(Lake(site.port, host=MACHINE))
        return watch_archive(lakes[0])

    async def story(site: Site) -> None:
        await asyncio.sleep(0)
        (lake,) = lakes
        await until(lambda: lake.dependency.reachable is False)
        assert (lake.health().answered, lake.health().archive) == (False, None)
        ill = msgspec.structs.replace(ARCHIVE, status="unhealthy")
        await site.answer(replies(msgspec.json.encode(ill), 503))
        await until(lambda: lake.archive)
        assert lake.health().archive == ill
        no_text, deep = b'{"status":"\xff"}', b'{"x":' + b"[" * 100_000
        for other in (
            *(b'{"status":"healthy"}', b"<html>", b"\xff", b"x" * (2 << 20), no_text, deep),
        ):
            await site.answer(replies(other))
            await until(lambda: not lake.archive)
            assert "somebody else answers" in lake.dependency.health().problem
            await site.answer(replies(msgspec.json.encode(ARCHIVE)))
            await until(lambda: lake.archive)
        await site.answer(hangs)
        await until(lambda: lake.archive is None)
        assert (lake.health().answers, lake.health().answered) == (False, True)

    watching(watch, story)


async def redirects(_request: web.Request) -> web.Response:
    return web.Response(status=302, headers={"Location": "http://a..b/"})


def test_a_redirect_of_an_archives_port_is_somebody_elses_answer() -> None:
    lakes: list[Lake] = []

    def watch(site: Site) -> Any:
        lakes.append(Lake(site.port, host=MACHINE))
        return watch_archive(lakes[0])

    async def story(site: Site) -> None:
        await site.answer(redirects)
        await until(lambda: "somebody else" in lakes[0].dependency.health().problem)
        asked = site.asked
        await until(lambda: site.asked > asked + 1)

    watching(watch, story)


def test_a_registry_that_redirects_is_there() -> None:
    registry = Dependency("http://registry", host=MACHINE)

    async def story(site: Site) -> None:
        await site.answer(redirects)
        await until(lambda: registry.reachable)

    watching(
        lambda site: watch_registry(Registry(f"http://127.0.0.1:{site.port}"), registry), story
    )


def test_the_age_of_a_commit_grows_between_two_looks() -> None:
    now_s = 100.0
    host = MACHINE._replace(monotonic_s=lambda: now_s)
    lake = Lake(1, host=host)
    tables = [TableHealth("trades", 10, 0, 2.0), TableHealth("gaps", 0, 0, None)]
    lake.saw(msgspec.structs.replace(ARCHIVE, tables=tables), None)
    now_s = 101.5
    found = lake.health().archive
    assert isinstance(found, ArchiveHealth)
    assert [table.last_commit_age_s for table in found.tables] == [3.5, None]


def test_how_long_something_has_been_so_starts_anew_when_it_changes() -> None:
    now_s = 0.0
    kafka = Dependency("k", host=MACHINE._replace(monotonic_s=lambda: now_s))
    for at_s, problem in ((1.0, None), (5.0, None), (9.0, "no answer"), (11.0, "refused")):
        now_s = at_s
        kafka.saw(problem)
    now_s = 12.0
    assert (kafka.for_s, kafka.health().problem) == (3.0, "refused")
