"""The pages of a health port, asked over a real socket, by the commands too."""

import asyncio
import json
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import web
from textual.widgets import DataTable, Static

from k2.cli import top_screen
from k2.cli.top_screen import TopScreen
from k2.ingestion.health import Health, HoleHealth, Stretch
from k2.ingestion.judgement import capture_problems
from k2.local.ports import pick_free
from k2.observability.http import serve_pages
from unit.ingestion.pretended_status import HEALTHY, TAPE, Pretended, serving


def served(story: Callable[[Pretended, str], Awaitable[None]]) -> None:
    async def run() -> None:
        service = Pretended()
        async with serving(service, pick_free(1)[0]) as url:
            await story(service, url)

    asyncio.run(run())


async def ask(url: str) -> tuple[int, Any]:
    async with aiohttp.ClientSession() as session, session.get(url) as reply:
        return reply.status, await reply.json()


async def k2(*words: str) -> tuple[int, str]:
    """Run a command; return its exit code and what it printed."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "k2", *words),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode()


@pytest.mark.parametrize(
    ("status", "code"), [("healthy", 200), ("degraded", 200), ("unhealthy", 503)]
)
def test_health_is_503_only_when_unhealthy(status: Any, code: int) -> None:
    async def story(service: Pretended, url: str) -> None:
        service.said = msgspec.structs.replace(HEALTHY, status=status)
        found, body = await ask(f"{url}/health")
        assert (found, body["status"]) == (code, status)
        assert body == msgspec.to_builtins(service.said)

    served(story)


def test_live_asks_nobody_ready_and_started_tell_why_not() -> None:
    async def story(service: Pretended, url: str) -> None:
        service.said = msgspec.structs.replace(HEALTHY, status="unhealthy")
        assert await ask(f"{url}/readyz") == (200, {"ready": True, "because": []})
        service.reasons = ["shutting down"]
        assert await ask(f"{url}/readyz") == (503, {"ready": False, "because": ["shutting down"]})
        assert await ask(f"{url}/startupz") == (200, {"started": True})
        service.started = False
        assert await ask(f"{url}/startupz") == (503, {"started": False})
        assert await ask(f"{url}/livez") == (200, {"live": True})

    served(story)


def test_the_page_comes_with_its_own_policy_and_the_rest_with_none_to_load_anything() -> None:
    async def story(_service: Pretended, url: str) -> None:
        async with aiohttp.ClientSession() as session:
            async with session.get(url) as reply:
                assert reply.content_type == "text/html"
                assert "script-src 'sha256-" in reply.headers["Content-Security-Policy"]
            async with session.get(f"{url}/health") as reply:
                assert reply.headers["Content-Security-Policy"].startswith("default-src 'none'")

    served(story)


def test_events_are_health_each_second() -> None:
    async def story(service: Pretended, url: str) -> None:
        async with aiohttp.ClientSession() as session, session.get(f"{url}/events") as reply:
            assert reply.content_type == "text/event-stream"
            found: list[Health] = []
            async for line in reply.content:
                if line.startswith(b"data: "):
                    found.append(msgspec.json.decode(line[6:], type=Health))
                    service.said = msgspec.structs.replace(HEALTHY, messages_received=len(found))
                if len(found) == 3:
                    break
            assert [one.messages_received for one in found] == [0, 1, 2]

    served(story)


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        ([], 0, "healthy (/health: 200)\n"),
        (["--ready"], 1, "not ready: starting, not connected (/readyz: 503)\n"),
        (["--live"], 0, "live (/livez: 200)\n"),
    ],
)
def test_healthcheck_is_one_line_and_an_exit_code(
    words: Sequence[str], code: int, line: str
) -> None:
    async def story(service: Pretended, url: str) -> None:
        service.reasons = ["starting", "not connected"]
        assert await k2("healthcheck", *words, "--url", url) == (code, line)

    served(story)


def test_healthcheck_names_what_is_wrong() -> None:
    async def story(service: Pretended, url: str) -> None:
        ill = msgspec.structs.replace(HEALTHY, connection_state="DISCONNECTED")
        problems = capture_problems(ill, registered=True)
        service.said = msgspec.structs.replace(ill, status="unhealthy", problems=problems)
        code, line = await k2("healthcheck", f"--url={url}")
        assert code == 1
        assert line.startswith("unhealthy: The exchange is not heard.")

    served(story)


def test_healthcheck_of_nobody_is_1_and_of_nonsense_is_2() -> None:
    async def story() -> None:
        code, line = await k2("healthcheck", "--url", f"http://127.0.0.1:{pick_free(1)[0]}")
        assert (code, line.count("\n")) == (1, 1)
        assert line.startswith("no answer from http://127.0.0.1:")
        assert (await k2("healthcheck", "--url", "::"))[0] == 1
        assert (await k2("healthcheck", "--unheard-of"))[0] == 2
        assert (await k2("healthcheck", "--help"))[1].startswith("Usage: k2 healthcheck")

    asyncio.run(story())


def test_healthcheck_asks_the_port_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(_service: Pretended, url: str) -> None:
        monkeypatch.setenv("K2_HEALTH_PORT", url.rpartition(":")[2])
        assert (await k2("healthcheck"))[0] == 0

    served(story)


def test_healthcheck_waits_no_longer_than_its_deadline() -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        began_s = time.monotonic()
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        words = [sys.executable, "-m", "k2", "healthcheck", "--url", url]
        found = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)
        assert found.returncode == 1
        assert "timed out" in found.stdout
        assert time.monotonic() - began_s < 10


def test_healthcheck_loads_no_library() -> None:
    program = (
        "import sys; sys.argv = ['k2', 'healthcheck', '--help']\n"
        "from k2.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print(sorted(m for m in sys.modules if 'site-packages' in "
        "str(getattr(sys.modules[m], '__file__', ''))))"
    )
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30
    )
    heavy = ("cyclopts", "pydantic", "aiohttp", "msgspec", "confluent_kafka", "rich", "structlog")
    assert not [name for name in heavy if f"'{name}'" in found.stdout], found.stdout


def test_top_once_prints_the_status_as_text_or_as_it_was_said() -> None:
    async def story(service: Pretended, url: str) -> None:
        code, text = await k2("top", "--once", "--json", "--url", url)
        assert (code, json.loads(text)) == (0, msgspec.to_builtins(HEALTHY))
        code, text = await k2("top", "--once", "--url", url + "/")
        assert code == 0
        assert "recording, all is well" in text
        assert "93711.17" in text
        service.said = msgspec.structs.replace(HEALTHY, status="unhealthy")
        assert (await k2("top", "--once", "--json", "--url", url))[0] == 1
        assert (await k2("top", "--once", "--url", url))[0] == 1
        code, text = await k2("top", "--once", "--url", f"http://127.0.0.1:{pick_free(1)[0]}")
        assert (code, text.count("\n")) == (1, 1)

    served(story)


async def until(condition: Callable[[], Any], *, within_s: float = 10.0) -> None:
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 any condition, not only an event
            await asyncio.sleep(0.02)


def test_top_shows_what_changes_a_hole_and_the_death_of_the_service(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(top_screen, "TICK_S", 0.02)

    async def run() -> None:
        service, port = Pretended(), pick_free(1)[0]
        screen = TopScreen(f"http://127.0.0.1:{port}")

        def shown(name: str) -> str:
            return str(screen.query_one(name, Static).content)

        def cell(column: str) -> str:
            table = screen.query_one("#tapes", DataTable)
            return str(table.get_cell("BTCUSDT", column)) if table.row_count else ""

        async with screen.run_test(size=(140, 40)) as pilot:
            await until(lambda: "has not been answering" in shown("#verdict"))
            async with serving(service, port):
                await until(lambda: "all is well" in shown("#verdict"))
                assert (cell("last trade"), cell("state")) == ("93711.17", "✓ whole")
                hole = HoleHealth(101, 112, 30, 4.0, True)
                recent = [Stretch("written", 100), Stretch("missing", 12), Stretch("held", 30)]
                tape = msgspec.structs.replace(TAPE, hole=hole, recent=recent, last_price="9")
                ill = msgspec.structs.replace(HEALTHY, status="degraded", tapes=[tape])
                problems = capture_problems(ill, registered=True)
                service.said = msgspec.structs.replace(ill, problems=problems)
                await until(lambda: "12 missing, healing" in cell("state"))
                await until(lambda: cell("last trade") == "9")
                assert "has not been answering" not in shown("#verdict")
                assert "!" in cell("last two minutes")
                assert "12 ids are missing" in shown("#problems")
                assert screen.query_one("#verdict").has_class("degraded")
                service.said = HEALTHY
                await until(lambda: cell("state") == "✓ whole")
                await pilot.press("space")
                service.said = msgspec.structs.replace(ill, problems=problems)
                asked = service.asked
                await until(lambda: service.asked > asked + 1)
            await until(lambda: "has not been answering" in shown("#verdict"))
            assert cell("state") == "✓ whole"  # it was held still
            await pilot.press("q")
        assert screen.return_code == 0

    asyncio.run(run())


def test_top_says_so_when_somebody_else_answers() -> None:
    async def other(_request: web.Request) -> web.Response:
        return web.Response(text='data: {"status": "fine"}\n\n')

    async def run() -> None:
        port = pick_free(1)[0]
        runner = await serve_pages(port, {"/events": other}, variables="K2_X")
        screen = TopScreen(f"http://127.0.0.1:{port}")
        async with screen.run_test():
            await until(
                lambda: (
                    "capture of this version" in str(screen.query_one("#verdict", Static).content)
                )
            )
        await runner.cleanup()

    asyncio.run(run())
