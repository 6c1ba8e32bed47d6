"""A REST client as the settings name it: addresses, stream, and whom it believes."""

import asyncio
from pathlib import Path

import pytest
from aiohttp import web

from k2.errors import RetryError, StopError
from k2.ingestion.venue import rest_of, tls_of
from k2.market import StreamKind
from k2.settings import Settings
from unit.tls_exchange import AUTHORITY, tls_exchange

HISTORICAL = "/api/v3/historicalTrades"
AGGREGATE = "/api/v3/aggTrades"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Return the settings of somebody who believes our authority."""
    AUTHORITY.cert_pem.write_to_path(tmp_path / "ca.pem")
    return Settings().model_copy(update={"tls_ca": tmp_path / "ca.pem"})


def _asked(settings: Settings, *, beside: bool = False, kind: StreamKind | None = None) -> str:
    """Ask an exchange that our authority vouches for; return the path it was asked for.

    Args:
        settings: Its address is written into them, unless it runs ``beside``.
        beside: Whether the exchange is not the one of the settings.
        kind: Which ids to ask for.
    """
    asked: list[str] = []

    async def none_traded(request: web.Request) -> web.Response:
        asked.append(request.path)
        return web.json_response([])

    async def ask() -> None:
        async with tls_exchange(dict.fromkeys((HISTORICAL, AGGREGATE), none_traded)) as address:
            urls = [f"https://{address}"]
            here = settings if beside else settings.model_copy(update={"rest_urls": urls})
            async with rest_of(here, urls=urls if beside else None, kind=kind) as rest:
                assert await rest.newest_id("BTCUSDT") is None

    asyncio.run(ask())
    return asked[0]


def test_the_authority_of_the_settings_is_believed(settings: Settings) -> None:
    assert _asked(settings) == AGGREGATE
    with pytest.raises(RetryError, match=r"(?i)certificate.verify.failed"):
        _asked(Settings())
    _asked(Settings().model_copy(update={"tls_verify": False}))


def test_the_ids_are_those_of_the_stream_unless_others_are_named(settings: Settings) -> None:
    fills = settings.model_copy(update={"stream": StreamKind.TRADE})
    assert _asked(fills) == HISTORICAL
    assert _asked(fills, kind=StreamKind.AGG_TRADE) == AGGREGATE


def test_an_exchange_beside_us_is_asked_instead_of_that_of_the_settings(
    settings: Settings,
) -> None:
    elsewhere = settings.model_copy(update={"rest_urls": ["https://127.0.0.1:9"]})
    assert _asked(elsewhere, beside=True) == AGGREGATE


def test_a_file_without_certificates_stops_whoever_names_it(tmp_path: Path) -> None:
    empty = tmp_path / "empty.pem"
    empty.touch()
    settings = Settings().model_copy(update={"tls_ca": empty})
    for make in (tls_of, rest_of):
        with pytest.raises(StopError, match=f"BINANCE_TLS_CA={empty}"):
            make(settings)
