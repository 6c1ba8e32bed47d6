"""Which exchange ``k2 up`` records when nobody names one."""

import asyncio
from pathlib import Path

from aiohttp import web

from k2.local.venue import VenueKind, choose_venue
from k2.settings import Settings
from unit.tls_exchange import AUTHORITY, tls_exchange


async def _chosen(settings: Settings) -> VenueKind:
    """Choose while an exchange answers that our authority vouches for."""

    async def pong(_request: web.Request) -> web.Response:
        return web.json_response({})

    async with tls_exchange({"/api/v3/ping": pong}) as address:
        here = settings.model_copy(update={"rest_urls": [f"https://{address}"]})
        return (await choose_venue(here, wish="auto", tape=None)).kind


def test_an_exchange_behind_our_own_authority_is_not_taken_for_absent(tmp_path: Path) -> None:
    AUTHORITY.cert_pem.write_to_path(tmp_path / "ca.pem")
    believing = Settings().model_copy(update={"tls_ca": tmp_path / "ca.pem"})
    assert asyncio.run(_chosen(believing)) is VenueKind.BINANCE
    assert asyncio.run(_chosen(Settings())) is VenueKind.BUILT_IN
