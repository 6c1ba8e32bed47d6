"""The REST side of the exchange, answered from its database."""

import asyncio
import time
from collections.abc import Awaitable, Callable

from aiohttp import web

from k2.market import StreamKind
from k2.simulator.config import ExchangeConfig
from k2.simulator.database import Database
from k2.simulator.faults import FaultPlan
from k2.simulator.frames import compact_json, rest_row
from k2.simulator.limits import RequestWeights, Verdict, WeightAnswer
from k2.simulator.listing import Listing, exchange_info_symbol
from k2.simulator.rest_rules import (
    RestError,
    RowsRequest,
    agg_trades_request,
    exchange_info_symbols,
    fills_request,
)

_Handler = Callable[[web.Request, bool], object]


class RestServer:
    """``/api/v3/...``: weights and faults first, then the rules, then the database."""

    def __init__(
        self,
        config: ExchangeConfig,
        *,
        listings: dict[str, Listing],
        database: Database,
        faults: FaultPlan,
    ) -> None:
        self._listings = listings
        self._database = database
        self._faults = faults
        self._weights = RequestWeights(
            weight_max=config.weight_max,
            window_s=config.weight_window_s,
            refusals_before_ban=config.refusals_before_ban,
            ban_first_s=config.ban_first_s,
        )

    def add_routes(self, app: web.Application) -> None:
        """Serve the public market data endpoints that a trade recorder uses."""
        for path, weight, handler in (
            ("ping", 1, self._ping),
            ("time", 1, self._time),
            ("exchangeInfo", 20, self._exchange_info),
            ("aggTrades", 4, self._agg_trades),
            ("historicalTrades", 25, self._historical_trades),
            ("trades", 25, self._trades),
        ):
            app.router.add_get(f"/api/v3/{path}", self._guarded(handler, weight))

    def _guarded(
        self, handler: _Handler, weight: int
    ) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def guarded(request: web.Request) -> web.Response:
            answer = self._weights.charge(request.remote or "", weight, time.time())
            headers = {"X-MBX-USED-WEIGHT-1M": str(answer.used_weight)}
            if answer.verdict is not Verdict.SERVE:
                headers["Retry-After"] = str(answer.retry_after_s)
                refusal = {"code": -1003, "msg": self._refusal_text(answer)}
                return _json(refusal, status=answer.verdict.value, headers=headers)
            fault = self._faults.take(request.path)
            if fault is not None:
                await asyncio.sleep(fault.delay_s)
                if fault.status != 200:
                    content_type, text = fault.body()
                    if fault.status in {418, 429}:
                        headers["Retry-After"] = str(fault.retry_after_s)
                    return web.Response(
                        status=fault.status, text=text, content_type=content_type, headers=headers
                    )
            unit = request.headers.get("X-MBX-TIME-UNIT", "MILLISECOND").upper()
            try:
                return _json(handler(request, unit == "MICROSECOND"), status=200, headers=headers)
            except RestError as error:
                body = {"code": error.code, "msg": error.msg}
                return _json(body, status=400, headers=headers)

        return guarded

    def _refusal_text(self, answer: WeightAnswer) -> str:
        if answer.verdict is Verdict.BANNED:
            until_ms = int(answer.banned_until_epoch_s * 1000)
            return (
                f"Way too much request weight used; IP banned until {until_ms}. Please use "
                "WebSocket Streams for live updates to avoid bans."
            )
        return (
            f"Too much request weight used; current limit is {self._weights.weight_max} request "
            "weight per 1 MINUTE. Please use WebSocket Streams for live updates to avoid polling "
            "the API."
        )

    @staticmethod
    def _ping(_request: web.Request, _microseconds: bool) -> object:
        return {}

    @staticmethod
    def _time(_request: web.Request, microseconds: bool) -> object:
        return {"serverTime": time.time_ns() // (1000 if microseconds else 1_000_000)}

    def _exchange_info(self, request: web.Request, microseconds: bool) -> object:
        statuses = {name: listing.status for name, listing in self._listings.items()}
        names = exchange_info_symbols(list(request.query.items()), statuses)
        weight = {
            "rateLimitType": "REQUEST_WEIGHT",
            "interval": "MINUTE",
            "intervalNum": 1,
            "limit": self._weights.weight_max,
        }
        raw = {
            "rateLimitType": "RAW_REQUESTS",
            "interval": "MINUTE",
            "intervalNum": 5,
            "limit": 300_000,
        }
        return {
            "timezone": "UTC",
            "serverTime": time.time_ns() // (1000 if microseconds else 1_000_000),
            "rateLimits": [weight, raw],
            "exchangeFilters": [],
            "symbols": [exchange_info_symbol(self._listings[name]) for name in names],
        }

    def _agg_trades(self, request: web.Request, microseconds: bool) -> object:
        pairs = list(request.query.items())
        now_us = time.time_ns() // 1000
        wanted = agg_trades_request(pairs, listed=self._listings, now_us=now_us)
        return self._answer(wanted, StreamKind.AGG_TRADE, microseconds)

    def _historical_trades(self, request: web.Request, microseconds: bool) -> object:
        wanted = fills_request(
            list(request.query.items()), listed=self._listings, known=("symbol", "fromId", "limit")
        )
        return self._answer(wanted, StreamKind.TRADE, microseconds)

    def _trades(self, request: web.Request, microseconds: bool) -> object:
        wanted = fills_request(
            list(request.query.items()), listed=self._listings, known=("symbol", "limit")
        )
        return self._answer(wanted, StreamKind.TRADE, microseconds)

    def _answer(self, wanted: RowsRequest, kind: StreamKind, microseconds: bool) -> object:
        rows = self._database.find(wanted, kind, now_s=time.monotonic())
        return [rest_row(row, microseconds=microseconds) for row in rows]


def _json(body: object, *, status: int, headers: dict[str, str]) -> web.Response:
    return web.Response(
        status=status, text=compact_json(body), content_type="application/json", headers=headers
    )
