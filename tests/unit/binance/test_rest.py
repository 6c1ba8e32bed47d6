"""The REST client against a server on loopback that answers what the test says."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer, unused_port

from k2.binance import rest as rest_module
from k2.binance.limits import WEIGHT_PER_MINUTE, WEIGHTS, Breaker
from k2.binance.rest import RETRY_AFTER_DEFAULT_S, SYMBOLS_PER_REQUEST_MAX, RestClient
from k2.errors import RejectError, RetryError, StopError
from k2.market import StreamKind, Symbol, Trade

AGG = StreamKind.AGG_TRADE
MINUTE_S = 60
NOW_S = 1_767_225_600.0 + 5
"""Five seconds into a minute."""


def _row(source_id: int) -> dict[str, Any]:
    return {
        "a": source_id,
        "p": "1.5",
        "q": "2",
        "f": source_id,
        "l": source_id,
        "T": 1_767_225_600_122_000,
        "m": True,
        "M": True,
    }


def _info(*names: str, status: str = "TRADING") -> dict[str, Any]:
    rows = [
        {"symbol": n, "baseAsset": n[:-4], "quoteAsset": n[-4:], "status": status} for n in names
    ]
    return {"symbols": rows}


class Clock:
    """A wall clock that waiting moves."""

    def __init__(self) -> None:
        self.now_s = NOW_S
        self.slept_s: list[float] = []

    @property
    def module(self) -> SimpleNamespace:
        return SimpleNamespace(time=lambda: self.now_s, time_ns=lambda: int(self.now_s * 1e9))


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock, real_sleep = Clock(), asyncio.sleep

    async def sleep(seconds: float) -> None:
        clock.slept_s.append(seconds)
        clock.now_s += seconds + 1e-6
        await real_sleep(0)

    patched = SimpleNamespace(**{name: getattr(asyncio, name) for name in ("Lock",)}, sleep=sleep)
    monkeypatch.setattr(rest_module, "asyncio", patched)
    monkeypatch.setattr(rest_module, "time", clock.module)
    return clock


class Venue:
    """Answers in turn what it was told to, and then ``[]``."""

    def __init__(self) -> None:
        self.answers: list[web.Response | Callable[[], Awaitable[web.Response]]] = []
        self.asked: list[str] = []
        self.headers: list[dict[str, str]] = []

    def say(self, body: Any, *, status: int = 200, **headers: str) -> None:
        text = body if isinstance(body, str) else json.dumps(body)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.answers.append(web.Response(status=status, text=text, headers=named))

    async def handle(self, request: web.Request) -> web.Response:
        self.asked.append(request.path_qs.removeprefix("/api/v3/"))
        self.headers.append(dict(request.headers))
        if not self.answers:
            return web.Response(text="[]")
        answer = self.answers.pop(0)
        return answer if isinstance(answer, web.Response) else await answer()


@asynccontextmanager
async def _venue() -> AsyncIterator[tuple[Venue, str]]:
    venue, app = Venue(), web.Application()
    app.router.add_get("/api/v3/{path}", venue.handle)
    async with TestServer(app) as server:
        yield venue, str(server.make_url("")).rstrip("/")


def _run(
    story: Callable[[Venue, RestClient], Coroutine[Any, Any, None]],
    *,
    kind: StreamKind = AGG,
    share: float = 0.5,
    before: tuple[str, ...] = (),
) -> None:
    async def run() -> None:
        async with (
            asyncio.timeout(20),
            _venue() as (venue, url),
            RestClient([*before, url], kind=kind, share=share) as rest,
        ):
            await story(venue, rest)

    asyncio.run(run())


def test_a_page_is_rows_from_an_id_on() -> None:
    async def story(venue: Venue, rest: RestClient) -> None:
        venue.say([_row(7), _row(8)])
        rows = await rest.rows_from("BTCUSDT", from_id=7)
        assert [row.source_id for row in rows] == [7, 8]
        assert isinstance(rows[0], Trade)
        assert rows[0].recv_ts_ns == int(NOW_S * 1e9)
        assert venue.asked == ["aggTrades?symbol=BTCUSDT&fromId=7&limit=1000"]
        assert venue.headers[0]["X-MBX-TIME-UNIT"] == "MICROSECOND"

    _run(story)


def test_single_fills_have_a_path_of_their_own() -> None:
    async def story(venue: Venue, rest: RestClient) -> None:
        await rest.rows_from("BTCUSDT", from_id=7)
        assert venue.asked == ["historicalTrades?symbol=BTCUSDT&fromId=7&limit=1000"]

    _run(story, kind=StreamKind.TRADE)


def test_the_newest_id_is_the_last_rows_or_none() -> None:
    async def story(venue: Venue, rest: RestClient) -> None:
        venue.say([_row(41)])
        assert await rest.newest_id("BTCUSDT") == 41
        assert await rest.newest_id("NEWUSDT") is None

    _run(story)


def test_the_first_id_at_a_time_is_asked_in_microseconds() -> None:
    async def story(venue: Venue, rest: RestClient) -> None:
        venue.say([_row(41)])
        assert await rest.id_at("BTCUSDT", 1_767_225_600_000_000) == 41
        assert await rest.id_at("BTCUSDT", 5) is None
        assert venue.asked == [
            "aggTrades?symbol=BTCUSDT&startTime=1767225600000000&limit=1",
            "aggTrades?symbol=BTCUSDT&startTime=1000000000000000&limit=1",
        ]

    _run(story)


def test_single_fills_cannot_be_asked_by_time() -> None:
    async def story(venue: Venue, rest: RestClient) -> None:
        with pytest.raises(RejectError, match="name the id instead"):
            await rest.id_at("BTCUSDT", 5)
        assert venue.asked == []

    _run(story, kind=StreamKind.TRADE)


def test_symbols_come_with_their_assets_in_questions_of_bounded_length() -> None:
    names = [f"S{number}USDT" for number in range(SYMBOLS_PER_REQUEST_MAX + 1)]

    async def story(venue: Venue, rest: RestClient) -> None:
        venue.say(_info(*names[:-1]))
        venue.say(_info(names[-1]))
        listed = await rest.symbols(names)
        assert list(listed) == names
        assert listed["S7USDT"] == Symbol("S7USDT", "S7", "USDT")
        assert len(venue.asked) == 2

    _run(story)


def test_one_unknown_name_does_not_hide_the_others() -> None:
    async def story(venue: Venue, rest: RestClient) -> None:
        venue.say({"code": -1121, "msg": "Invalid symbol."}, status=400)
        venue.say(_info("BTCUSDT", "ETHUSDT", "ADAUSDT"))
        assert set(await rest.symbols(["BTCUSDT", "NOUSDT", "ETHUSDT"])) == {"BTCUSDT", "ETHUSDT"}
        assert venue.asked[1] == "exchangeInfo"

    _run(story)


def test_what_is_quoted_in_an_asset_is_what_trades_now() -> None:
    async def story(venue: Venue, rest: RestClient) -> None:
        listed = _info("BTCUSDT", "BTCUSDC")["symbols"]
        halted = _info("LUNAUSDT", status="BREAK")["symbols"]
        venue.say({"symbols": listed + halted})
        assert await rest.quoted_in(["USDT"]) == {"BTCUSDT"}

    _run(story)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, "oops"),
        (503, ""),
        (400, '{"code":-1100,"msg":"Illegal characters"}'),
    ],
)
def test_a_refusal_is_worth_another_try_and_says_what_was_answered(status: int, body: str) -> None:
    async def story(venue: Venue, rest: RestClient) -> None:
        venue.say(body, status=status)
        with pytest.raises(RetryError, match=f"REST answered {status} for /api/v3/aggTrades"):
            await rest.rows_from("BTCUSDT", from_id=1)
        assert await rest.rows_from("BTCUSDT", from_id=1) == []

    _run(story)


@pytest.mark.parametrize(
    ("location", "named"),
    [
        (
            "https://me:hush@portal.example/login?token=hush",  # pragma: allowlist secret
            "'https://portal.example/login'",
        ),
        ("http://a..b/", "'http://a..b/'"),
        ("/api/v3/time", "'/api/v3/time'"),
    ],
)
def test_a_redirect_is_not_followed_and_says_where_it_points(location: str, named: str) -> None:
    async def story(venue: Venue, rest: RestClient) -> None:
        venue.say("", status=302, Location=location)
        with pytest.raises(RetryError, match="REST answered 302") as caught:
            await rest.rows_from("BTCUSDT", from_id=1)
        assert f"redirect to {named}" in str(caught.value)
        assert "hush" not in str(caught.value)
        assert len(venue.asked) == 1

    _run(story)


def test_an_address_that_is_none_is_worth_another_try() -> None:
    async def run() -> None:
        async with RestClient(["http://a..b"], kind=AGG) as rest:
            with pytest.raises(RetryError, match="cannot be reached"):
                await rest.newest_id("BTCUSDT")

    asyncio.run(run())


@pytest.mark.parametrize("number", ["²", "9" * 5000, "-1", "1_0"])
def test_numbers_in_headers_that_nobody_can_mean_are_passed_over(number: str, clock: Clock) -> None:
    async def story(venue: Venue, rest: RestClient) -> None:
        venue.say([_row(7)], X_MBX_USED_WEIGHT_1M=number)
        assert await rest.newest_id("BTCUSDT") == 7
        venue.say("", status=429, Retry_After=number)
        with pytest.raises(RetryError, match=f"rate limit.* {RETRY_AFTER_DEFAULT_S:g} s"):
            await rest.newest_id("BTCUSDT")
        assert clock.slept_s == []

    _run(story)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (403, "<html>blocked by the firewall</html>"),
        (451, '{"code":0,"msg":"Service unavailable from a restricted location"}'),
    ],
)
def test_a_venue_that_shuts_us_out_is_left_alone_for_a_while(
    status: int, body: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("k2.binance.rest.REFUSED_DELAY_S", 0.3)

    async def story(venue: Venue, rest: RestClient) -> None:
        assert rest.breaker() is Breaker.CLOSED
        venue.say(body, status=status)
        with pytest.raises(RetryError, match=f"REST answered {status} for /api/v3/aggTrades"):
            await rest.rows_from("BTCUSDT", from_id=1)
        assert rest.breaker() is Breaker.OPEN
        assert await rest.rows_from("BTCUSDT", from_id=1) == []
        assert rest.breaker() is Breaker.CLOSED

    _run(story)


def test_the_exchanges_clock_lies_between_two_looks_at_ours() -> None:
    async def story(venue: Venue, rest: RestClient) -> None:
        venue.say({"serverTime": 1_795_284_198_388_123})
        before_us, exchange_us, after_us = await rest.clock()
        assert exchange_us == 1_795_284_198_388_123
        assert before_us <= after_us
        venue.say({"serverTime": "soon"})
        with pytest.raises(RetryError, match="not a time"):
            await rest.clock()

    _run(story)


@pytest.mark.parametrize("body", ["<html>welcome</html>", "", '{"a":1}', "[1]", "[{}]", "[{"])
def test_an_answer_that_is_no_page_is_worth_another_try(body: str) -> None:
    async def story(venue: Venue, rest: RestClient) -> None:
        venue.say(body)
        with pytest.raises(RetryError, match="REST answered"):
            await rest.rows_from("BTCUSDT", from_id=1)

    _run(story)


def test_an_address_that_refuses_or_is_away_is_passed_over() -> None:
    async def run() -> None:
        async with (
            asyncio.timeout(20),
            _venue() as (first, first_url),
            _venue() as (second, second_url),
            RestClient(
                [f"http://127.0.0.1:{unused_port()}", first_url, second_url], kind=AGG
            ) as rest,
        ):
            first.say("no", status=451)
            second.say([_row(1)])
            assert await rest.newest_id("BTCUSDT") == 1
            second.say("no", status=503)
            first.say("no", status=502)
            with pytest.raises(RetryError, match="503"):
                await rest.newest_id("BTCUSDT")

    asyncio.run(run())


def test_a_server_that_is_away_is_worth_another_try() -> None:
    async def run() -> None:
        async with RestClient([f"http://127.0.0.1:{unused_port()}"], kind=AGG) as rest:
            with pytest.raises(RetryError, match="cannot be reached"):
                await rest.newest_id("BTCUSDT")

    asyncio.run(run())


def test_outside_of_its_block_it_is_a_mistake_of_ours() -> None:
    with pytest.raises(StopError, match="async with"):
        asyncio.run(RestClient(["http://x"], kind=AGG).newest_id("BTCUSDT"))


# What may be spent.


@pytest.mark.parametrize("status", [429, 418])
@pytest.mark.parametrize(
    ("header", "wait_s"), [("37", 37.0), ("soon", RETRY_AFTER_DEFAULT_S), ("", None)]
)
def test_after_a_rate_limit_nothing_is_asked_for_as_long_as_the_venue_says(
    status: int, header: str, wait_s: float | None, clock: Clock
) -> None:
    async def story(venue: Venue, rest: RestClient) -> None:
        headers = {"Retry_After": header} if header else {}
        venue.say('{"code":-1003}', status=status, **headers)
        with pytest.raises(RetryError, match=f"rate limit: REST answered {status}"):
            await rest.newest_id("BTCUSDT")
        assert clock.slept_s == []
        await asyncio.gather(*(rest.newest_id("BTCUSDT") for _ in range(3)))
        assert clock.slept_s == [wait_s or RETRY_AFTER_DEFAULT_S]

    _run(story)


def test_a_rate_limit_of_one_address_is_not_escaped_to_the_next() -> None:
    async def run() -> None:
        async with (
            asyncio.timeout(20),
            _venue() as (first, first_url),
            _venue() as (second, second_url),
            RestClient([first_url, second_url], kind=AGG) as rest,
        ):
            first.say("", status=429)
            with pytest.raises(RetryError, match="429"):
                await rest.newest_id("BTCUSDT")
            assert second.asked == []

    asyncio.run(run())


@pytest.mark.parametrize("share", [0.02, 0.05])
def test_only_a_share_of_the_weight_is_spent_in_a_minute(share: float, clock: Clock) -> None:
    allowed = int(WEIGHT_PER_MINUTE * share) // WEIGHTS["aggTrades"]

    async def story(venue: Venue, rest: RestClient) -> None:
        for _ in range(allowed):
            await rest.newest_id("BTCUSDT")
        assert clock.slept_s == []
        await rest.newest_id("BTCUSDT")
        assert clock.slept_s == [pytest.approx(MINUTE_S - 5)]
        assert len(venue.asked) == allowed + 1

    _run(story, share=share)


def test_an_address_that_answers_no_better_costs_its_weight_too(clock: Clock) -> None:
    share = 6 * WEIGHTS["aggTrades"] / WEIGHT_PER_MINUTE

    async def run() -> None:
        async with (
            asyncio.timeout(20),
            _venue() as (first, first_url),
            _venue() as (second, second_url),
            RestClient([first_url, second_url], kind=AGG, share=share) as rest,
        ):
            for _ in range(4):
                first.say("", status=500)
            for _ in range(3):
                await rest.newest_id("BTCUSDT")
            assert (len(first.asked), len(second.asked), clock.slept_s) == (3, 3, [])
            await rest.newest_id("BTCUSDT")
            assert len(clock.slept_s) == 1

    asyncio.run(run())


def test_an_address_nobody_could_be_asked_at_costs_nothing(clock: Clock) -> None:
    allowed = int(WEIGHT_PER_MINUTE * 0.01) // WEIGHTS["aggTrades"]

    async def story(_venue: Venue, rest: RestClient) -> None:
        for _ in range(allowed):
            await rest.newest_id("BTCUSDT")
        assert clock.slept_s == []

    _run(story, share=0.01, before=(f"http://127.0.0.1:{unused_port()}",))


def test_what_others_at_this_address_spent_counts(clock: Clock) -> None:
    async def story(venue: Venue, rest: RestClient) -> None:
        venue.say([], X_MBX_USED_WEIGHT_1M=str(WEIGHT_PER_MINUTE - 1))
        await rest.newest_id("BTCUSDT")
        await rest.newest_id("BTCUSDT")
        assert clock.slept_s == [pytest.approx(MINUTE_S - 5)]

    _run(story)


def test_whoever_asks_first_is_served_first(clock: Clock) -> None:
    async def story(venue: Venue, rest: RestClient) -> None:
        venue.say("", status=429, Retry_After="20")
        with pytest.raises(RetryError):
            await rest.newest_id("BTCUSDT")
        assert rest._session is not None
        sent: list[str] = []
        get = rest._session.get

        def noted(url: str, *, params: dict[str, str], **how: Any) -> Any:
            sent.append(params["fromId"])
            return get(url, params=params, **how)

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(rest._session, "get", noted)
            await asyncio.gather(*(rest.rows_from("BTCUSDT", from_id=n) for n in range(20)))
        assert sent == [str(number) for number in range(20)]
        assert clock.slept_s[0] == 20.0
        assert len(clock.slept_s) == 21, "one a minute"

    _run(story, share=WEIGHTS["aggTrades"] / WEIGHT_PER_MINUTE)


def test_questions_do_not_wait_for_the_answers_of_others() -> None:
    async def story(venue: Venue, rest: RestClient) -> None:
        answered = asyncio.Event()

        async def late() -> web.Response:
            await answered.wait()
            return web.Response(text="[]")

        venue.answers = [late]
        slow = asyncio.ensure_future(rest.newest_id("BTCUSDT"))
        while not venue.asked:  # noqa: ASYNC110 the condition is the server's
            await asyncio.sleep(0.001)
        assert await rest.newest_id("ETHUSDT") is None
        assert not slow.done()
        answered.set()
        await slow

    _run(story)


def test_whoever_gives_up_waiting_gives_up_its_turn(clock: Clock) -> None:
    async def story(venue: Venue, rest: RestClient) -> None:
        venue.say("", status=429, Retry_After="20")
        with pytest.raises(RetryError):
            await rest.newest_id("BTCUSDT")
        given_up = asyncio.ensure_future(rest.newest_id("BTCUSDT"))
        given_up.cancel()
        await asyncio.gather(given_up, return_exceptions=True)
        await rest.newest_id("ETHUSDT")
        assert clock.slept_s == [20.0]

    _run(story)
