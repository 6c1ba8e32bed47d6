"""Which exchange ``k2 up`` records when nobody names one."""

import asyncio
import ssl
from pathlib import Path

import trustme
from aiohttp import web

from k2.local.venue import VenueKind, choose_venue
from k2.settings import Settings

AUTHORITY = trustme.CA()


async def _chosen(settings: Settings) -> VenueKind:
    """Choose while an exchange answers that our authority vouches for."""

    async def pong(_request: web.Request) -> web.Response:
        return web.json_response({})

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    AUTHORITY.issue_cert("127.0.0.1").configure_cert(context)
    app = web.Application()
    app.router.add_get("/api/v3/ping", pong)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        url = f"https://127.0.0.1:{runner.addresses[0][1]}"
        here = settings.model_copy(update={"rest_urls": [url]})
        return (await choose_venue(here, wish="auto", tape=None)).kind
    finally:
        await runner.cleanup()


def test_an_exchange_behind_our_own_authority_is_not_taken_for_absent(tmp_path: Path) -> None:
    AUTHORITY.cert_pem.write_to_path(tmp_path / "ca.pem")
    believing = Settings().model_copy(update={"tls_ca": tmp_path / "ca.pem"})
    assert asyncio.run(_chosen(believing)) is VenueKind.BINANCE
    assert asyncio.run(_chosen(Settings())) is VenueKind.BUILT_IN
