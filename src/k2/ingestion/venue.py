"""The exchange's REST side as the settings name it."""

import ssl
from collections.abc import Sequence

from k2.binance.rest import RestClient
from k2.binance.tls import venue_tls
from k2.market import StreamKind
from k2.settings import Settings


def tls_of(settings: Settings) -> ssl.SSLContext:
    """Return what connections to the exchange verify certificates with.

    Raises:
        StopError: If BINANCE_TLS_CA holds no certificates.
    """
    return venue_tls(ca=settings.tls_ca, verify=settings.tls_verify)


def rest_of(
    settings: Settings,
    *,
    urls: Sequence[str] | None = None,
    kind: StreamKind | None = None,
    tls: ssl.SSLContext | None = None,
) -> RestClient:
    """Return a client, to be opened with ``async with``.

    Args:
        settings: Of this process.
        urls: Of an exchange that runs beside us, when not those of the settings.
        kind: Which ids are asked for, when not those of the stream.
        tls: Of ``tls_of``, where there is one already: reading certificates takes its time.

    Raises:
        StopError: If BINANCE_TLS_CA holds no certificates.
    """
    return RestClient(
        urls or settings.rest_urls,
        kind=kind or settings.stream,
        share=settings.address_share,
        tls=tls or tls_of(settings),
    )
