"""REST's answers: reach, weight, and the clock of an exchange that differs from ours."""

import json
import time
import urllib.request
from collections.abc import Iterator

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from k2.doctor.finding import Finding, Level, Unseen
from k2.doctor.reach_judgement import Place
from k2.doctor.rest_judgement import (
    Answer,
    ClockOffset,
    ClockSample,
    clock_offset,
    judge_answer,
    judge_clock,
)
from k2.doctor.rest_look import ask_clock, ask_ping
from k2.simulator import Exchange, ExchangeConfig
from unit.doctor.servers import answering, in_background

PLACE = Place("h", 443, "BINANCE_REST_URL")


@pytest.fixture
def exchange() -> Iterator[Exchange]:
    with in_background(Exchange(ExchangeConfig(symbols=("BTCUSDT",)))) as running:
        yield running


def _ping(url: str) -> list[Finding]:
    return judge_answer(PLACE, ask_ping(url))


def _fault(exchange: Exchange, **order: object) -> None:
    request = urllib.request.Request(
        f"{exchange.rest_url}/control/faults",
        data=json.dumps(order).encode(),
        headers={"Content-Type": "application/json"},
    )
    urllib.request.urlopen(request, timeout=10).close()


def test_a_healthy_exchange_answers_with_weight_left_and_the_same_clock(
    exchange: Exchange,
) -> None:
    ping, weight = _ping(exchange.rest_url)
    assert (ping.level, weight.level) == (Level.OK, Level.OK)
    assert weight.seen == "1 used this minute, 5999 left"
    clock = ask_clock(exchange.rest_url)
    assert isinstance(clock, ClockOffset)
    assert abs(clock.offset_s) <= clock.uncertainty_s  # one machine, one clock
    assert judge_clock(PLACE, clock).level is Level.OK


@pytest.mark.parametrize(
    ("status", "word"),
    [(418, "30 s"), (429, "30 s"), (503, "wait"), (403, "data-api"), (404, "host")],
)
def test_each_refusal_is_told_with_what_to_do(exchange: Exchange, status: int, word: str) -> None:
    if status in (403, 404):  # the box refuses with its own words only
        (found,) = judge_answer(PLACE, Answer(status, 0.1))
    else:
        _fault(exchange, status=status, path="ping", retry_after_s=30)
        (found,) = _ping(exchange.rest_url)
    assert found.level is Level.FAIL
    assert f"HTTP {status}" in found.seen
    assert word in found.fix


def test_a_place_the_venue_does_not_serve_is_sent_to_the_other_address() -> None:
    async def refuse(_: web.Request) -> web.Response:
        return web.Response(status=451)

    with answering("/api/v3/ping", refuse) as url:
        (found,) = _ping(url)
    assert found.level is Level.FAIL
    assert "BINANCE_REST_URL=https://data-api.binance.vision" in found.fix


@pytest.mark.parametrize(
    ("used", "level"),
    [
        (4199, Level.OK),
        (4200, Level.WARN),
        (5699, Level.WARN),
        (5700, Level.FAIL),
        (6001, Level.FAIL),
    ],
)
def test_weight_that_others_used_up_is_told(used: int, level: Level) -> None:
    async def reply(_: web.Request) -> web.Response:
        return web.Response(text="{}", headers={"X-MBX-USED-WEIGHT-1M": str(used)})

    with answering("/api/v3/ping", reply) as url:
        _, found = _ping(url)
    assert found.level is level
    assert f"{max(0, 6000 - used)} left" in found.seen


def test_an_answer_without_weight_is_not_taken_for_binance() -> None:
    async def reply(_: web.Request) -> web.Response:
        return web.Response(text="{}")

    with answering("/api/v3/ping", reply) as url:
        _, found = _ping(url)
    assert found.level is Level.WARN


@pytest.mark.parametrize(
    ("off_s", "level", "word"),
    [
        (0.0, Level.OK, ""),
        (0.5, Level.WARN, "behind the exchange's"),
        (-0.5, Level.WARN, "ahead of the exchange's"),
        (1.27, Level.FAIL, "1.3 s behind"),
        (-3600.0, Level.FAIL, "60 min ahead of"),
    ],
)
@pytest.mark.parametrize("units_per_s", [1_000, 1_000_000])
def test_a_clock_that_differs_is_measured_and_judged(
    off_s: float, level: Level, word: str, units_per_s: int
) -> None:
    async def reply(request: web.Request) -> web.Response:
        assert request.headers["X-MBX-TIME-UNIT"] == "MICROSECOND"
        return web.json_response({"serverTime": int((time.time() + off_s) * units_per_s)})

    with answering("/api/v3/time", reply) as url:
        clock = ask_clock(url)
    assert isinstance(clock, ClockOffset)
    assert abs(clock.offset_s - off_s) <= clock.uncertainty_s + 0.001
    found = judge_clock(PLACE, clock)
    assert found.level is level
    assert word in found.seen
    assert (level is Level.OK) or "set-ntp" in found.fix


def test_an_offset_within_its_uncertainty_is_no_news() -> None:
    assert judge_clock(PLACE, ClockOffset(0.8, 0.75)).level is Level.OK
    assert judge_clock(PLACE, ClockOffset(0.8, 0.70)).level is Level.WARN
    assert judge_clock(PLACE, ClockOffset(-1.8, 0.75)).level is Level.FAIL


DELAY_S = st.floats(0, 5)


@given(
    off_s=st.floats(-1e4, 1e4), ways=st.lists(st.tuples(DELAY_S, DELAY_S), min_size=1, max_size=6)
)
def test_the_true_offset_is_never_outside_the_uncertainty(
    off_s: float, ways: list[tuple[float, float]]
) -> None:
    samples = [
        ClockSample(asked_s=1e9, answered_s=1e9 + there + back, server_s=1e9 + there + off_s)
        for there, back in ways
    ]
    found = clock_offset(samples)
    assert abs(found.offset_s - off_s) <= found.uncertainty_s + 1e-5
    assert found.uncertainty_s <= min(there + back for there, back in ways) / 2 + 1e-5


@pytest.mark.parametrize("body", ["[]", '{"time": 1}', '{"serverTime": "soon"}', "<html>"])
def test_an_answer_that_is_no_time_is_said(body: str) -> None:
    async def reply(_: web.Request) -> web.Response:
        return web.Response(text=body)

    with answering("/api/v3/time", reply) as url:
        found = judge_clock(PLACE, ask_clock(url))
    assert found.level is Level.FAIL
    assert "is not one" in found.seen


def test_a_path_in_front_of_the_api_is_kept() -> None:
    async def reply(_: web.Request) -> web.Response:
        return web.Response(text="{}", headers={"X-MBX-USED-WEIGHT-1M": "1"})

    with answering("/mirror/api/v3/ping", reply) as url:
        assert _ping(url + "/mirror")[0].level is Level.OK
        assert _ping(url)[0].level is Level.FAIL


def test_who_never_answers_is_waited_for_no_longer_than_the_timeout(
    deaf_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("k2.doctor.rest_look.TIMEOUT_S", 0.2)
    url = f"http://127.0.0.1:{deaf_port}"
    assert ask_ping(url) == Unseen("nothing answered within 0.2 s")
    assert ask_clock(url) == Unseen("nothing answered within 0.2 s")


def test_a_refused_connection_is_said(closed_port: int) -> None:
    (found,) = _ping(f"http://127.0.0.1:{closed_port}")
    assert found.level is Level.FAIL
    assert "refused" in found.seen.lower()
