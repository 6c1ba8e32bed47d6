"""The test bench's own endpoints, ``/control/...``, answered to this machine only."""

import ipaddress
import json
from collections.abc import Awaitable, Callable
from typing import Protocol

import msgspec
from aiohttp import web

from k2.simulator.faults import FaultPlan, RestFault
from k2.simulator.recording import RecordingSummary
from k2.simulator.websocket import StreamServer

_Handler = Callable[[web.Request], Awaitable[web.Response]]


class Controlled(Protocol):
    """What of an exchange can be looked at and changed from outside."""

    recording: RecordingSummary | None

    @property
    def trading(self) -> bool: ...  # noqa: D102 described by Exchange

    @property
    def tape_finished(self) -> bool: ...  # noqa: D102 described by Exchange

    @property
    def streams(self) -> StreamServer: ...  # noqa: D102 described by Exchange

    def newest(self) -> dict[str, dict[str, int]]: ...  # noqa: D102 described by Exchange

    def start_trading(self) -> None: ...  # noqa: D102 described by Exchange

    def stop_trading(self) -> None: ...  # noqa: D102 described by Exchange

    def drop_connections(self, *, how: str) -> int: ...  # noqa: D102 described by Exchange


class _Trading(msgspec.Struct, forbid_unknown_fields=True):
    on: bool


class _Drop(msgspec.Struct, forbid_unknown_fields=True):
    drop: str

    def __post_init__(self) -> None:
        if self.drop not in {"close", "abort"}:
            raise ValueError(f"drop must be close or abort, not {self.drop}")


class ControlServer:
    """Freeze and thaw trading, order REST faults, drop connections, look at counts."""

    def __init__(self, exchange: Controlled, faults: FaultPlan) -> None:
        self._exchange = exchange
        self._faults = faults

    def add_routes(self, app: web.Application) -> None:
        """Serve the control endpoints."""
        app.router.add_get("/control/newest", self._local(self._newest))
        app.router.add_get("/control/status", self._local(self._status))
        app.router.add_post("/control/trading", self._local(self._trading))
        app.router.add_post("/control/faults", self._local(self._add_fault))
        app.router.add_delete("/control/faults", self._local(self._clear_faults))
        app.router.add_post("/control/connections", self._local(self._connections))

    @staticmethod
    def _local(handler: _Handler) -> _Handler:
        async def guarded(request: web.Request) -> web.Response:
            if not ipaddress.ip_address(request.remote or "0.0.0.0").is_loopback:  # noqa: S104 no peer, so not local
                return web.json_response({"msg": "only for this machine"}, status=403)
            try:
                return await handler(request)
            except (msgspec.DecodeError, msgspec.ValidationError) as exc:
                return web.json_response({"msg": str(exc)}, status=400)

        return guarded

    async def _newest(self, _request: web.Request) -> web.Response:
        return _json({"trading": self._exchange.trading, "newest": self._exchange.newest()})

    async def _status(self, _request: web.Request) -> web.Response:
        exchange = self._exchange
        return _json(
            {
                "trading": exchange.trading,
                "tape_finished": exchange.tape_finished,
                "connections": len(exchange.streams.connections),
                "counts": dict(exchange.streams.counts),
                "recording": None
                if exchange.recording is None
                else msgspec.to_builtins(exchange.recording),
            }
        )

    async def _trading(self, request: web.Request) -> web.Response:
        wanted = msgspec.json.decode(await request.read(), type=_Trading)
        if wanted.on:
            self._exchange.start_trading()
        else:
            self._exchange.stop_trading()
        return _json({"trading": self._exchange.trading, "newest": self._exchange.newest()})

    async def _add_fault(self, request: web.Request) -> web.Response:
        self._faults.add(msgspec.json.decode(await request.read(), type=RestFault))
        return _json({})

    async def _clear_faults(self, _request: web.Request) -> web.Response:
        self._faults.clear()
        return _json({})

    async def _connections(self, request: web.Request) -> web.Response:
        wanted = msgspec.json.decode(await request.read(), type=_Drop)
        return _json({"dropped": self._exchange.drop_connections(how=wanted.drop)})


def _json(body: object) -> web.Response:
    return web.Response(text=json.dumps(body, ensure_ascii=False), content_type="application/json")
