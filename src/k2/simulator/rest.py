"""The REST side of the exchange, answered from the ledger."""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable

from aiohttp import web

from k2.market import StreamKind
from k2.simulator.config import ExchangeConfig
from k2.simulator.faults import FaultPlan
from k2.simulator.frames import compact_json, rest_row
from k2.simulator.ledger import Ledger
from k2.simulator.limits import RequestWeights, Verdict, WeightAnswer
from k2.simulator.listing import Listing, exchange_info_symbol
from k2.simulator.rest_rules import (
    RestError,
    RowsRequest,
    agg_trades_request,
    exchange_info_symbols,
    fills_request,
)
from k2.simulator.rows import TapeRow

_Handler = Callable[[web.Request, bool], object]


class DatabaseLag:
    """Which ids REST may show yet: those published at least ``delay_s`` ago. PURE.

    Remembers one entry per publishing step of the last ``delay_s``. Rows of an earlier run of the
    exchange are shown at once.
    """

    def __init__(self, delay_s: float) -> None:
        self._delay_s = delay_s
        self._steps: deque[tuple[float, dict[tuple[str, StreamKind], int]]] = deque()
        self._shown: dict[tuple[str, StreamKind], int] = {}

    def published(
        self, rows: Iterable[TapeRow], now_s: float, before: Callable[[str, StreamKind], int]
    ) -> None:
        """Note one step; ``before`` tells a series' newest id before this run published any."""
        if not self._delay_s:
            return
        step: dict[tuple[str, StreamKind], int] = {}
        for row in rows:
            step[row.symbol, row.kind] = row.row_id
        for key in step.keys() - self._shown.keys():
            self._shown[key] = before(*key)
        self._steps.append((now_s + self._delay_s, step))
        self._advance(now_s)

    def newest_shown(self, symbol: str, kind: StreamKind, now_s: float) -> int:
        """Return the newest id REST may show."""
        if not self._delay_s:
            return 2**63 - 1
        self._advance(now_s)
        return self._shown.get((symbol, kind), 2**63 - 1)

    def _advance(self, now_s: float) -> None:
        while self._steps and self._steps[0][0] <= now_s:
            self._shown.update(self._steps.popleft()[1])


class RestServer:
    """``/api/v3/...``: weights and faults first, then the rules, then the ledger."""

    def __init__(
        self,
        config: ExchangeConfig,
        *,
        listings: dict[str, Listing],
        ledger: Ledger,
        lag: DatabaseLag,
        faults: FaultPlan,
    ) -> None:
        self._listings = listings
        self._ledger = ledger
        self._lag = lag
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
                        headers["Retry-After"] = "1"
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
        rows = self._find(wanted, kind)
        return [rest_row(row, microseconds=microseconds) for row in rows]

    def _find(self, wanted: RowsRequest, kind: StreamKind) -> list[TapeRow]:
        symbol, limit = wanted.symbol, wanted.limit
        shown = self._lag.newest_shown(symbol, kind, time.monotonic())
        if wanted.end_ts_us is not None:
            after = self._ledger.first_id_at(symbol, kind, wanted.end_ts_us + 1)
            shown = shown if after is None else min(shown, after - 1)
        if wanted.from_id is not None:
            return self._ledger.rows(symbol, kind, wanted.from_id, limit, last_id=shown)
        if wanted.start_ts_us is not None:
            first = self._ledger.first_id_at(symbol, kind, wanted.start_ts_us)
            return (
                []
                if first is None
                else self._ledger.rows(symbol, kind, first, limit, last_id=shown)
            )
        return self._ledger.newest_rows(symbol, kind, limit, last_id=shown)


def _json(body: object, *, status: int, headers: dict[str, str]) -> web.Response:
    return web.Response(
        status=status, text=compact_json(body), content_type="application/json", headers=headers
    )
