"""The status page in a real browser: over real services, and over every state one can be in."""

import asyncio
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import msgspec
import pytest
from playwright.sync_api import ViewportSize

from integration.harness import Room
from k2.ingestion.health import Health, HoleHealth, LakeHealth, LegHealth, Stretch
from k2.ingestion.judgement import capture_problems
from k2.local.ports import pick_free
from system.status_browser import DESKTOP, PHONE, Seen, open_page
from unit.ingestion.pretended_status import HEALTHY, LEG, TAPE, Pretended, serving

POSITION = "document.querySelector('#tapes tbody tr td:nth-child(6)').textContent"


class Mortal(Pretended):
    """A service that can be made to end."""

    def __init__(self, ending: threading.Event) -> None:
        super().__init__()
        self.dies = ending.set


@contextmanager
def pretending(said: Health) -> Iterator[tuple[Mortal, str]]:
    """Serve a status from a thread of its own."""
    serves, ending = threading.Event(), threading.Event()
    service, (port,) = Mortal(ending), pick_free(1)
    service.said = said

    async def run() -> None:
        async with serving(service, port):
            serves.set()
            await asyncio.to_thread(ending.wait)

    thread = threading.Thread(target=asyncio.run, args=(run(),))
    thread.start()
    try:
        assert serves.wait(10)
        yield service, f"http://127.0.0.1:{port}/"
    finally:
        ending.set()
        thread.join()


def judged(health: Health) -> Health:
    problems = capture_problems(health, registered=True)
    status: Any = "unhealthy" if any(p.level == "bad" for p in problems) else "degraded"
    return msgspec.structs.replace(health, problems=problems, status=status)


def many_symbols() -> Health:
    tapes = [
        msgspec.structs.replace(TAPE, symbol=f"COIN{number:03}USDT", last_id=10**10 + number)
        for number in range(60)
    ]
    return msgspec.structs.replace(HEALTHY, tapes=tapes, symbols=[t.symbol for t in tapes])


def everything_wrong() -> Health:
    hole = HoleHealth(3_712_346_058, 3_712_346_070, 12_345, 61.0, True)
    recent = [
        *(Stretch("written", 4000), Stretch("declared", 3), Stretch("waiting", 20)),
        *(Stretch("missing", 13), Stretch("held", 900)),
    ]
    tapes = [
        msgspec.structs.replace(TAPE, hole=hole, recent=recent, open_gap_ids=3),
        msgspec.structs.replace(TAPE, symbol="1000SATSFDUSD", silent=True, silent_s=999.0),
        msgspec.structs.replace(TAPE, symbol="NEWUSDT", next_id=None, last_id=None, recent=[]),
    ]
    legs = [
        msgspec.structs.replace(LEG, state="rotating"),
        LegHealth("b", False, "waiting", 0.0, 0, 0, 0.0, None, 12.0),
        LegHealth("b2", False, "connecting", 0.0, 0, 0, 0.0, None, None),
    ]
    away = msgspec.structs.replace(HEALTHY.kafka, reachable=False, problem="no answer")
    return judged(
        msgspec.structs.replace(
            HEALTHY,
            tapes=tapes,
            legs=legs,
            kafka=away,
            schema_registry=away,
            connection_state="ROTATING",
            lake=LakeHealth("http://127.0.0.1:8003", False, True, 33.0, None),
            memory=msgspec.structs.replace(HEALTHY.memory, leak_score=0.9, trend_bytes=[1, 9]),
            environment="simulated",
        )
    )


STATES: dict[str, Health] = {
    "healthy": HEALTHY,
    "starting": judged(
        msgspec.structs.replace(
            HEALTHY, phase="starting", connection_state="CONNECTING", tapes=[], legs=[]
        )
    ),
    "everything wrong": everything_wrong(),
    "many symbols": many_symbols(),
}


def wait_shown(seen: Seen) -> None:
    seen.wait("document.getElementById('verdict').dataset.level !== 'unknown'")


@pytest.mark.integration
def test_over_real_services_values_change_a_hole_heals_and_death_is_seen(room: Room) -> None:
    room.exchange("--rate", "100")
    port, archive_port = pick_free(2)
    room.extra |= {"K2_HEALTH_PORT": str(port), "K2_ARCHIVE_HEALTH_PORT": str(archive_port)}
    stream = room.stream()
    room.archive()
    room.wait_until_archiving()
    with open_page(f"http://127.0.0.1:{port}/") as seen:
        seen.wait_headline("Recording, all is well")
        seen.wait("document.querySelectorAll('#tapes tbody tr').length === 3")
        before = seen.page.evaluate(POSITION)
        seen.wait(f"{POSITION} !== {before!r}")
        assert "writer" in seen.text("#summary")
        assert "INVENTED" in seen.text("#where")
        seen.wait("document.getElementById('lake').innerText.includes('✓ well')")
        seen.wait("document.getElementById('lake').innerText.includes('Queryable after')")
        seen.wait("document.getElementById('legs').innerText.match(/✓ live/g).length === 2")
        assert "Next rotation: leg" in seen.text("#rotation")
        assert "✓ writes" in seen.text("#shards")
        seen.wait("document.querySelector('#trend polyline').getAttribute('points').length > 5")
        seen.shoot("light")
        seen.page.set_viewport_size(PHONE)
        seen.shoot("phone")
        seen.page.set_viewport_size(DESKTOP)

        # A hole opens and heals before one's eyes: both legs miss 12 ids, and REST trails.
        room.control("rest", {"delay_s": 8})
        skip = {"fault": "skip", "count": 12, "symbol": "BTCUSDT", "stream": "aggTrade"}
        room.control("stream-faults", skip)
        seen.wait_headline("1 thing to watch")
        seen.wait("document.querySelector('.bar .missing') !== null")
        assert "✕ 12 missing, " in seen.text("#tapes")
        assert "12 ids are missing" in seen.text("#problems")
        held = "Number(document.querySelector('.bar .held').style.flexGrow)"
        seen.wait(f"{held} > 20")
        seen.page.emulate_media(color_scheme="dark")
        seen.shoot("hole-dark")
        seen.wait_headline("Recording, all is well")
        seen.wait("document.querySelector('.bar .missing') === null")
        assert seen.text("#tapes").count("✓ whole") == 3
        assert seen.complaints == []

        # Its death is shown as such, and its return.
        stream.kill()
        seen.wait_headline("Service not answering since ")
        assert seen.page.title().startswith("✕ k2: Service not answering since ")
        assert "last values it sent" in seen.text("#summary")
        seen.shoot("gone-dark")
        room.control("rest", {"delay_s": 0})
        stream.start()
        seen.wait_headline("Recording, all is well")
        assert not [one for one in seen.complaints if "net::ERR_" not in one], seen.complaints
        assert {url.split("/")[2] for url in seen.asked if url.startswith("http")} == {
            f"127.0.0.1:{port}"
        }


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_axe_finds_nothing_and_nothing_scrolls_sideways_in_any_state(
    scheme: Literal["light", "dark"], viewport: ViewportSize
) -> None:
    with (
        pretending(HEALTHY) as (service, url),
        open_page(url, scheme=scheme, viewport=viewport) as seen,
    ):
        wait_shown(seen)
        for name, state in STATES.items():
            service.said = state
            rows = len(state.tapes)
            seen.wait(f"document.querySelectorAll('#tapes tbody tr').length === {rows}")
            if rows:
                seen.page.click("#tapes tbody tr button >> nth=0")
                seen.wait("document.querySelector('#tapes tr.more dl div') !== null")
            assert seen.violations() == [], name
            width = seen.page.evaluate("document.documentElement.scrollWidth")
            assert width <= viewport["width"], name
            if rows:
                seen.page.click("#tapes tbody tr button >> nth=0")
        service.said = HEALTHY
        seen.wait_headline("all is well")
        assert seen.complaints == []
        service.dies()
        seen.wait_headline("Service not answering since")
        assert seen.violations() == [], "gone"


def test_what_is_wrong_is_said_in_words_and_signs_not_by_colour_alone() -> None:
    with pretending(everything_wrong()) as (_, url), open_page(url) as seen:
        wait_shown(seen)
        assert seen.text("#sign") == "✕"
        assert "Kafka at kafka:9092 has been away" in seen.text("#headline")
        lines = seen.text("#problems").splitlines()
        assert lines[0].startswith("✕ wrong")
        assert any(line.startswith("▲ watch") for line in lines)
        legs = seen.text("#legs")
        assert all(word in legs for word in ("⇄ rotating", "✕ again in 12 s", "… connecting"))
        assert "✕ away for" in seen.text("#kafka")
        assert "▲ leaks" in seen.text("#memory")
        bar = seen.page.get_attribute("#tapes .bar >> nth=0", "aria-label")
        assert bar == "4,000 written, 3 declared, 20 waiting, 13 missing, 900 held"
        # What is small and bad can be seen all the same.
        missing = seen.page.locator(".bar .missing").bounding_box()
        assert missing is not None
        assert missing["width"] >= 8


def test_everything_can_be_reached_and_done_by_keyboard() -> None:
    with pretending(many_symbols()) as (_, url), open_page(url) as seen:
        wait_shown(seen)
        page = seen.page

        def focused() -> str:
            return str(
                page.evaluate("document.activeElement.id || document.activeElement.textContent")
            )

        page.keyboard.press("Tab")
        assert focused() == "Skip to the symbols"
        page.keyboard.press("Enter")
        assert focused() == "symbols"
        page.keyboard.press("Tab")
        assert focused() == "filter"
        page.keyboard.type("coin05")
        seen.wait("document.querySelectorAll('#tapes tbody tr').length === 10")
        page.keyboard.press("Tab")
        assert focused() == "COIN050USDT"
        page.keyboard.press("Enter")
        seen.wait("document.querySelector('#tapes tr.more') !== null")
        assert "First id of the tape" in seen.text("#tapes tr.more")
        assert "10000000050" in seen.text("#tapes tr.more")
        assert focused() == "COIN050USDT"  # an update does not take the focus away
        page.keyboard.press("Enter")
        seen.wait("document.querySelector('#tapes tr.more') === null")


def test_held_still_nothing_moves_until_it_goes_on() -> None:
    with pretending(HEALTHY) as (service, url), open_page(url) as seen:
        wait_shown(seen)
        seen.page.click("#hold")
        service.said = many_symbols()
        events = seen.page.evaluate("performance.now()") + 2500
        seen.wait(f"performance.now() > {events}")
        assert seen.page.locator("#tapes tbody tr").count() == 1
        seen.page.click("#hold")
        assert seen.page.locator("#tapes tbody tr").count() == 60


def test_a_name_that_is_markup_is_shown_as_text() -> None:
    evil = "<img src=x onerror=alert(1)>"
    tape = msgspec.structs.replace(TAPE, symbol=evil)
    said = msgspec.structs.replace(HEALTHY, tapes=[tape], environment=evil, version=evil)
    with pretending(said) as (_, url), open_page(url) as seen:
        wait_shown(seen)
        assert evil in seen.text("#tapes")
        assert seen.page.locator("img").count() == 0
        assert seen.complaints == []


def test_more_readers_than_there_is_room_for_wait_and_say_so() -> None:
    with pretending(HEALTHY) as (_, url):
        held = [urllib.request.urlopen(f"{url}events", timeout=10) for _ in range(8)]
        try:
            with open_page(url) as seen:
                seen.wait_headline("Service not answering since")
                held.pop().close()
                seen.wait_headline("all is well")
        finally:
            for one in held:
                one.close()
