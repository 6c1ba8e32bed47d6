"""The shell round aiohttp for the venue's REST side: the past by id, and what is listed."""

import asyncio
import ssl
import time
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Self

import aiohttp
import structlog

from k2.binance.limits import PATHS, WEIGHT_PER_MINUTE, WEIGHTS, Breaker, WeightBudget
from k2.binance.redirects import REDIRECTS, redirect_told
from k2.binance.rows import decode_quoted_in, decode_rows, decode_symbols, decode_time
from k2.errors import RejectError, RetryError, StopError
from k2.market import BadRow, StreamKind, Symbol, Trade
from k2.tape.healing import PAGE_ROWS

TIMEOUT_S = 10.0
RETRY_AFTER_DEFAULT_S = 10.0
REFUSED_DELAY_S = 10.0
"""After every address answered 403 (their firewall: too much was asked) or 451 (not from here)."""

SYMBOLS_PER_REQUEST_MAX = 100
HEADER_DIGITS_MAX = 6
"""The venue's weights stay below its 6,000 a minute, its longest ban is 3 days of seconds."""

_log = structlog.get_logger()


class UnknownSymbolError(RetryError):
    """The exchange does not list a symbol (code -1121): never was, or not any more."""


class RestClient:
    """GETs only, so repeating one is always safe. Times are asked for in microseconds."""

    def __init__(
        self,
        base_urls: Sequence[str],
        *,
        kind: StreamKind,
        share: float = 0.5,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Name the addresses, tried in order; open it with ``async with``.

        ``share`` is the part of the address's weight per minute this client may spend. Without
        ``tls`` the system's authorities count.
        """
        self._base_urls = list(base_urls)
        self._tls = tls or True
        self._kind = kind
        self._path = PATHS[kind]
        self._budget = WeightBudget(limit=int(share * WEIGHT_PER_MINUTE))
        self._turn = asyncio.Lock()
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=TIMEOUT_S),
            headers={"X-MBX-TIME-UNIT": "MICROSECOND"},
        )
        return self

    async def __aexit__(self, *_exc: object) -> None:
        if self._session is not None:
            await self._session.close()

    def breaker(self) -> Breaker:
        """Whether the venue is asked at all now."""
        return self._budget.breaker(time.time())

    async def clock(self) -> tuple[int, int, int]:
        """Return our clock before, the exchange's, and our clock after: us since the epoch.

        Raises:
            RetryError: If REST cannot be asked right now.
        """
        before_us = time.time_ns() // 1000
        body = await self._get("time", {})
        return before_us, decode_time(body), time.time_ns() // 1000

    async def rows_from(self, symbol: str, *, from_id: int) -> list[Trade | BadRow]:
        """Return up to 1,000 rows with ids from ``from_id`` on, ascending.

        Raises:
            RetryError: If REST cannot be asked right now, or no longer lists the symbol.
        """
        params = {"symbol": symbol, "fromId": str(from_id), "limit": str(PAGE_ROWS)}
        body = await self._get(self._path, params)
        return self._decode(body, symbol)

    async def newest_id(self, symbol: str) -> int | None:
        """Return the newest id REST has, or None when the symbol never traded."""
        body = await self._get(self._path, {"symbol": symbol, "limit": "1"})
        rows = self._decode(body, symbol)
        return rows[-1].source_id if rows else None

    async def id_at(self, symbol: str, ts_us: int) -> int | None:
        """Return the first id traded at ``ts_us`` (us since the epoch) or later, None if none was.

        Raises:
            RejectError: If the venue cannot tell: only ``aggTrades`` can be asked by time.
            RetryError: If REST cannot be asked right now.
        """
        if self._kind is not StreamKind.AGG_TRADE:
            raise RejectError(
                f"{self._path} cannot be asked by time, only by id: name the id instead"
            )
        # Smaller numbers are taken for milliseconds; nothing was traded as early as 2001.
        params = {"symbol": symbol, "startTime": str(max(ts_us, 10**15)), "limit": "1"}
        rows = self._decode(await self._get(self._path, params), symbol)
        return rows[0].source_id if rows else None

    async def symbols(self, names: Sequence[str]) -> dict[str, Symbol]:
        """Return base and quote asset of each name the exchange lists, from ``exchangeInfo``.

        Raises:
            RetryError: If REST cannot be asked right now.
        """
        listed: dict[str, Symbol] = {}
        for start in range(0, len(names), SYMBOLS_PER_REQUEST_MAX):
            part = names[start : start + SYMBOLS_PER_REQUEST_MAX]
            text = "[" + ",".join(f'"{name}"' for name in part) + "]"
            try:
                body = await self._get("exchangeInfo", {"symbols": text})
            except UnknownSymbolError:
                # One unknown name refuses the whole question: ask for everything, once.
                return decode_symbols(await self._get("exchangeInfo", {}), names=names)
            listed |= decode_symbols(body, names=part)
        return listed

    async def quoted_in(self, quotes: Iterable[str]) -> set[str]:
        """Return the names of symbols that trade against one of these assets now.

        Raises:
            RetryError: If REST cannot be asked right now.
        """
        return decode_quoted_in(await self._get("exchangeInfo", {}), quotes=quotes)

    def _decode(self, body: bytes, symbol: str) -> list[Trade | BadRow]:
        return decode_rows(body, kind=self._kind, symbol=symbol, recv_ts_ns=time.time_ns())

    async def _get(self, path: str, params: Mapping[str, str]) -> bytes:
        if self._session is None:
            raise StopError("RestClient is used outside its `async with`")
        problem, refused, paid = "", 0, False
        for base_url in self._base_urls:
            url = f"{base_url}/api/v3/{path}"
            if not paid:
                await self._pay(path)
            paid = False
            try:
                async with self._session.get(
                    url, params=params, ssl=self._tls, allow_redirects=False
                ) as response:
                    body = await response.read()
                    self._learn(response)
                    if response.status == HTTPStatus.OK:
                        self._budget.answered()
                        return body
                    refused += response.status in (HTTPStatus.FORBIDDEN, 451)
                    problem = _refusal(response, body)
            except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as exc:
                # ValueError: no address at all. Where nobody was asked, the next one is paid for.
                paid = isinstance(exc, aiohttp.ClientConnectorError)
                problem = f"{base_url} cannot be reached: {exc or type(exc).__name__}"
        if refused == len(self._base_urls):
            self._budget.block(retry_after_s=REFUSED_DELAY_S, wall_s=time.time())
        raise RetryError(problem)

    async def _pay(self, path: str) -> None:
        """Wait until one question's weight may be spent; the venue counts it, however it ends."""
        async with self._turn:  # first come, first served: no symbol starves another
            while (wait_s := self._budget.wait_s(weight=WEIGHTS[path], wall_s=time.time())) > 0:
                _log.info("rest_budget_waits", path=path, wait_s=round(wait_s, 1))
                await asyncio.sleep(wait_s)

    def _learn(self, response: aiohttp.ClientResponse) -> None:
        used_weight = _number(response, "X-MBX-USED-WEIGHT-1M")
        if used_weight is not None:
            self._budget.learn(used_weight=used_weight, wall_s=time.time())
        if response.status in (HTTPStatus.TOO_MANY_REQUESTS, 418):
            told_s = _number(response, "Retry-After")
            retry_after_s = RETRY_AFTER_DEFAULT_S if told_s is None else float(told_s)
            self._budget.block(retry_after_s=retry_after_s, wall_s=time.time())
            raise RetryError(f"rate limit: REST answered {response.status}, {retry_after_s:g} s")


def _number(response: aiohttp.ClientResponse, header: str) -> int | None:
    """Return the whole number a header holds; None for what no venue means by it."""
    text = response.headers.get(header, "")
    return int(text) if text.isdecimal() and len(text) <= HEADER_DIGITS_MAX else None


def _refusal(response: aiohttp.ClientResponse, body: bytes) -> str:
    """Return why a reply is not an answer; raise where no other address would answer better."""
    text = body[:200].decode("utf-8", errors="replace")
    if response.status == HTTPStatus.BAD_REQUEST and b"-1121" in body:
        raise UnknownSymbolError(f"the exchange does not list a symbol asked for: {text}")
    if response.status in REDIRECTS:
        text = redirect_told(response.headers.get("Location", ""))
    return f"REST answered {response.status} for {response.url.path}: {text}"
