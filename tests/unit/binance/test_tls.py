"""Whom the connections to the exchange believe, on real sockets."""

import asyncio
import ssl
from pathlib import Path

import pytest
import trustme
from aiohttp import web

from k2.binance.rest import RestClient
from k2.binance.tls import venue_tls
from k2.binance.websocket import connect
from k2.errors import RetryError, StopError
from k2.market import StreamKind
from unit.tls_exchange import AUTHORITY, tls_exchange


class Nobody:
    """Wants to hear of nothing."""

    def text(self, payload: bytes, recv_ts_ns: int) -> None: ...
    def pinged(self) -> None: ...
    def ponged(self) -> None: ...
    def refused(self, code: int, text: str) -> None: ...
    def ended(self) -> None: ...


async def _rest(request: web.Request) -> web.Response:
    return web.json_response({"serverTime": 1_700_000_000_000_000})


async def _stream(request: web.Request) -> web.WebSocketResponse:
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    await socket.receive()
    return socket


def _ask(tls: ssl.SSLContext | None) -> None:
    """Ask REST for the time and open a stream, of an exchange nobody but us vouches for."""

    async def ask() -> None:
        async with tls_exchange({"/api/v3/time": _rest, "/ws": _stream}) as address:
            socket = await connect(f"wss://{address}/ws", Nobody(), tls=tls)
            socket.abort()
            await socket.wait_ended()
            async with RestClient([f"https://{address}"], kind=StreamKind.TRADE, tls=tls) as rest:
                await rest.clock()

    asyncio.run(ask())


def test_an_unknown_authority_is_not_believed(tmp_path: Path) -> None:
    for tls in (None, venue_tls(ca=None, verify=True)):
        with pytest.raises(RetryError, match=r"(?i)certificate.verify.failed"):
            _ask(tls)


def test_an_authority_from_a_file_is_believed(tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    AUTHORITY.cert_pem.write_to_path(ca)
    _ask(venue_tls(ca=ca, verify=True))


def test_another_authority_from_a_file_is_not_believed(tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(ca)
    with pytest.raises(RetryError, match=r"(?i)certificate.verify.failed"):
        _ask(venue_tls(ca=ca, verify=True))


def test_without_verification_anybody_is_believed() -> None:
    _ask(venue_tls(ca=None, verify=False))


def test_a_file_without_certificates_is_named(tmp_path: Path) -> None:
    empty = tmp_path / "empty.pem"
    empty.touch()
    with pytest.raises(StopError, match="BINANCE_TLS_CA="):
        venue_tls(ca=empty, verify=True)
