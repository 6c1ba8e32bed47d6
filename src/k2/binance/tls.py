"""Whom to believe that it is the exchange."""

import ssl
from pathlib import Path

from k2.errors import StopError


def venue_tls(*, ca: Path | None, verify: bool) -> ssl.SSLContext:
    """Return what connections to the exchange verify certificates with.

    Args:
        ca: PEM certificates to believe instead of the system's.
        verify: Whether to verify at all.

    Raises:
        StopError: If ``ca`` holds no certificates.
    """
    try:
        context = ssl.create_default_context(cafile=ca)
    except OSError as exc:
        raise StopError(f"BINANCE_TLS_CA={ca} holds no certificates: {exc}") from exc
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
