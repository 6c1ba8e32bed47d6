"""The shell that resolves, connects and shakes hands; blocking."""

import socket
import ssl
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

from k2.doctor.finding import Finding, Level, Unseen
from k2.doctor.reach_judgement import (
    Certificate,
    Names,
    Place,
    Refused,
    Unverified,
    judge_certificate,
    judge_names,
    judge_port,
)

CONNECT_TIMEOUT_S = 5.0

_DEFAULT_PORTS = {"https": 443, "wss": 443, "http": 80, "ws": 80}


def place_of(url: str, *, setting: str) -> Place:
    """Return host and port of an address that the settings have accepted."""
    parts = urlsplit(url)
    return Place(parts.hostname or "", parts.port or _DEFAULT_PORTS[parts.scheme], setting)


def look_at_address(
    place: Place, *, tls: bool, believed: ssl.SSLContext | None = None
) -> Iterator[Finding]:
    """Yield name, port and, where it is spoken, TLS; end at the first that fails.

    Args:
        place: Where to look.
        tls: Whether a certificate is expected there.
        believed: Which authorities count; None is the system's.
    """
    found = judge_names(place, _resolve(place))
    yield found
    if found.level is Level.FAIL:
        return
    found = judge_port(place, connect(place))
    yield found
    if tls and found.level is not Level.FAIL:
        yield judge_certificate(place, shake_hands(place, believed))


def reached(url: str, *, setting: str, believed: ssl.SSLContext | None = None) -> Iterator[Finding]:
    """Yield what ``look_at_address`` finds at a URL."""
    secure = urlsplit(url).scheme in ("https", "wss")
    yield from look_at_address(place_of(url, setting=setting), tls=secure, believed=believed)


def connect(place: Place) -> float | Unseen:
    """Connect and hang up; return how long connecting took, in seconds."""
    began_s = time.monotonic()
    try:
        with socket.create_connection((place.host, place.port), CONNECT_TIMEOUT_S):
            return time.monotonic() - began_s
    except OSError as exc:
        return Unseen(_reason(exc))


def shake_hands(
    place: Place, believed: ssl.SSLContext | None = None
) -> Certificate | Unverified | Refused | Unseen:
    """Verify the certificate as k2's own connections do; send nothing."""
    context = believed or ssl.create_default_context()
    try:
        with (
            socket.create_connection((place.host, place.port), CONNECT_TIMEOUT_S) as plain,
            context.wrap_socket(plain, server_hostname=place.host) as secure,
        ):
            if context.verify_mode is ssl.CERT_NONE:
                return Unverified(secure.version() or "")
            peer = secure.getpeercert() or {}
            return Certificate(
                name=_named(peer.get("subject"), "commonName") or place.host,
                issuer=_named(peer.get("issuer"), "organizationName")
                or _named(peer.get("issuer"), "commonName"),
                left_days=(ssl.cert_time_to_seconds(str(peer["notAfter"])) - time.time()) / 86_400,
                protocol=secure.version() or "",
            )
    except ssl.SSLCertVerificationError as exc:
        return Refused(exc.verify_code, exc.verify_message)
    except OSError as exc:  # an SSLError is one too
        return Unseen(_reason(exc))


def _resolve(place: Place) -> Names | Unseen:
    began_s = time.monotonic()
    try:
        found = socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as exc:
        return Unseen(_reason(exc))
    return Names(len({entry[4][0] for entry in found}), time.monotonic() - began_s)


def _reason(exc: Exception) -> str:
    if isinstance(exc, TimeoutError):
        return f"nothing answered within {CONNECT_TIMEOUT_S:g} s"
    if isinstance(exc, ssl.SSLError):
        return f"no TLS handshake: {(exc.reason or str(exc)).replace('_', ' ').lower()}"
    return str(getattr(exc, "strerror", None) or exc)


def _named(parts: object, name: str) -> str:
    """Return one field of a certificate's subject or issuer, as ``getpeercert`` nests them."""
    if not isinstance(parts, tuple):
        return ""
    fields = {key: value for part in parts for key, value in part}
    return str(fields.get(name, ""))
