"""The test bench's own endpoints, ``/control/...``, answered to this machine only."""

import ipaddress
import json
import time
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

import msgspec
from aiohttp import web

from k2.errors import RejectError
from k2.simulator.control_requests import Connections, Listings, Rest, Trading
from k2.simulator.database import Database
from k2.simulator.faults import FaultPlan, RestFault
from k2.simulator.floor import TradingFloor
from k2.simulator.stream_faults import AnyStreamFault
from k2.simulator.websocket import StreamServer

_Handler = Callable[[web.Request], Awaitable[web.Response]]
_Asked = TypeVar("_Asked")


class Controlled(Protocol):
    """What of an exchange can be looked at and changed from outside."""

    @property
    def trading(self) -> bool: ...  # noqa: D102 described by Exchange

    @property
    def tape_finished(self) -> bool: ...  # noqa: D102 described by Exchange

    @property
    def streams(self) -> StreamServer: ...  # noqa: D102 described by Exchange

    @property
    def floor(self) -> TradingFloor: ...  # noqa: D102 described by Exchange

    @property
    def database(self) -> Database: ...  # noqa: D102 described by Exchange

    def newest(self) -> dict[str, dict[str, int]]: ...  # noqa: D102 described by Exchange

    def start_trading(self) -> None: ...  # noqa: D102 described by Exchange

    def stop_trading(self) -> None: ...  # noqa: D102 described by Exchange


class ControlServer:
    """Steer trading, listings and what REST shows; order faults, end connections, look."""

    def __init__(self, exchange: Controlled, faults: FaultPlan, *, rest_delay_s: float) -> None:
        self._exchange = exchange
        self._faults = faults
        self._rest_delay_s = rest_delay_s

    def add_routes(self, app: web.Application) -> None:
        """Serve the control endpoints."""
        router = app.router
        router.add_get("/control/newest", self._local(self._newest))
        router.add_get("/control/status", self._local(self._status))
        router.add_post("/control/trading", self._local(self._trading))
        router.add_post("/control/listings", self._local(self._listings))
        router.add_post("/control/connections", self._local(self._connections))
        router.add_post("/control/rest", self._local(self._rest))
        router.add_delete("/control/rest", self._local(self._reset_rest))
        router.add_post("/control/stream-faults", self._local(self._add_stream_fault))
        router.add_delete("/control/stream-faults", self._local(self._cancel_stream_faults))
        router.add_delete(
            r"/control/stream-faults/{number:\d{1,9}}", self._local(self._cancel_stream_faults)
        )
        router.add_post("/control/faults", self._local(self._add_rest_fault))
        router.add_delete("/control/faults", self._local(self._forget_all_faults))

    @staticmethod
    def _local(handler: _Handler) -> _Handler:
        async def guarded(request: web.Request) -> web.Response:
            if not ipaddress.ip_address(request.remote or "0.0.0.0").is_loopback:  # noqa: S104 no peer, so not local
                return web.json_response({"msg": "only for this machine"}, status=403)
            try:
                return await handler(request)
            except msgspec.DecodeError as exc:
                return web.json_response({"msg": str(exc)}, status=400)
            except RejectError as exc:
                return web.json_response({"msg": str(exc)}, status=409)

        return guarded

    async def _newest(self, _request: web.Request) -> web.Response:
        return _json({"trading": self._exchange.trading, "newest": self._exchange.newest()})

    async def _status(self, _request: web.Request) -> web.Response:
        exchange, now_s = self._exchange, time.monotonic()
        streams, floor, database = exchange.streams, exchange.floor, exchange.database
        return _json(
            {
                "trading": exchange.trading,
                "tape_finished": exchange.tape_finished,
                "connections": len(streams.connections),
                "open_connections": [c.describe() for c in streams.connections.values()],
                "counts": dict(streams.counts),
                "standing_faults": streams.orders.describe(now_s),
                "rest": {
                    "delay_s": database.lag.delay_s,
                    "missing": database.describe_missing(now_s),
                },
                "listings": {name: listing.status for name, listing in floor.listings.items()},
                "recording": None
                if floor.recording is None
                else msgspec.to_builtins(floor.recording),
            }
        )

    async def _trading(self, request: web.Request) -> web.Response:
        wanted = await _asked(request, Trading)
        if wanted.rate is not None:
            self._exchange.floor.set_rate(wanted.rate)
        if wanted.on is True:
            self._exchange.start_trading()
        elif wanted.on is False:
            self._exchange.stop_trading()
        return await self._newest(request)

    async def _listings(self, request: web.Request) -> web.Response:
        wanted = await _asked(request, Listings)
        floor = self._exchange.floor
        if wanted.add is not None:
            floor.add(wanted.add)
        if wanted.remove is not None:
            floor.remove(wanted.remove)
        floor.change_status(wanted.status)
        return _json({name: listing.status for name, listing in floor.listings.items()})

    async def _connections(self, request: web.Request) -> web.Response:
        wanted = await _asked(request, Connections)
        chosen = self._exchange.streams.choose(wanted.which)
        for connection in chosen:
            if wanted.announce_shutdown is not None:
                connection.announce_shutdown(lead_s=wanted.announce_shutdown.lead_s)
            elif wanted.drop == "abort":
                connection.abort("dropped")
            else:
                connection.end("dropped", code=wanted.code, reason=wanted.reason)
        done = "dropped" if wanted.announce_shutdown is None else "announced"
        return _json({done: len(chosen), "connections": [c.number for c in chosen]})

    async def _rest(self, request: web.Request) -> web.Response:
        wanted = await _asked(request, Rest)
        database, now_s = self._exchange.database, time.monotonic()
        if wanted.missing is not None:
            self._check_listed(wanted.missing.symbol)
            database.miss(wanted.missing, now_s=now_s)
        if wanted.delay_s is not None:
            database.lag.change(wanted.delay_s, now_s=now_s)
        return _json({})

    async def _reset_rest(self, _request: web.Request) -> web.Response:
        database = self._exchange.database
        database.miss_nothing()
        database.lag.change(self._rest_delay_s, now_s=time.monotonic())
        return _json({})

    async def _add_stream_fault(self, request: web.Request) -> web.Response:
        fault: AnyStreamFault = msgspec.json.decode(await request.read(), type=AnyStreamFault)
        self._check_listed(getattr(fault, "symbol", None))
        number, connections = self._exchange.streams.order(fault)
        return _json({"number": number, "connections": connections})

    async def _cancel_stream_faults(self, request: web.Request) -> web.Response:
        number = request.match_info.get("number")
        self._exchange.streams.cancel(None if number is None else int(number))
        return _json({})

    async def _add_rest_fault(self, request: web.Request) -> web.Response:
        self._faults.add(await _asked(request, RestFault))
        return _json({})

    async def _forget_all_faults(self, request: web.Request) -> web.Response:
        self._faults.clear()
        self._exchange.streams.cancel(None)
        return await self._reset_rest(request)

    def _check_listed(self, symbol: str | None) -> None:
        if symbol is not None and symbol not in self._exchange.floor.listings:
            raise RejectError(f"{symbol} is not listed")


async def _asked(request: web.Request, kind: type[_Asked]) -> _Asked:
    return msgspec.json.decode(await request.read(), type=kind)


def _json(body: object) -> web.Response:
    return web.Response(text=json.dumps(body, ensure_ascii=False), content_type="application/json")
