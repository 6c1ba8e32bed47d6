"""The shell that asks REST for a ping and for the time; blocking."""

import json
import ssl
import time
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from urllib.parse import urlsplit

from k2.doctor.finding import Unseen
from k2.doctor.rest_judgement import Answer, ClockOffset, ClockSample, clock_offset

TIMEOUT_S = 5.0
SAMPLES = 5

_MICROSECOND = {"X-MBX-TIME-UNIT": "MICROSECOND"}


def ask_ping(url: str, *, tls: ssl.SSLContext | None = None) -> Answer | Unseen:
    """Ask ``/api/v3/ping``: weight 1. Without ``tls`` the system's authorities count."""
    connection = _open(url, tls)
    try:
        began_s = time.monotonic()
        connection.request("GET", _path(url, "ping"))
        reply = connection.getresponse()
        reply.read()
        used = reply.headers.get("X-MBX-USED-WEIGHT-1M", "")
        wait = reply.headers.get("Retry-After", "")
        return Answer(
            reply.status,
            time.monotonic() - began_s,
            used_weight=int(used) if used.isdigit() else None,
            retry_after_s=int(wait) if wait.isdigit() else None,
        )
    except (OSError, HTTPException) as exc:
        return Unseen(_reason(exc))
    finally:
        connection.close()


def ask_clock(url: str, *, tls: ssl.SSLContext | None = None) -> ClockOffset | Unseen:
    """Ask ``/api/v3/time`` some times over one connection: weight 1 each."""
    connection = _open(url, tls)
    try:
        # The first round trip opens the connection, and is no measure of anything.
        samples = [_sample(connection, url) for _ in range(SAMPLES + 1)][1:]
    except (OSError, HTTPException) as exc:
        return Unseen(_reason(exc))
    except (ValueError, KeyError, TypeError) as exc:
        return Unseen(f"the answer to /api/v3/time is not one: {exc}")
    finally:
        connection.close()
    return clock_offset(samples)


def _sample(connection: HTTPConnection, url: str) -> ClockSample:
    asked_s = time.time()
    connection.request("GET", _path(url, "time"), headers=_MICROSECOND)
    reply = connection.getresponse()
    answered_s = time.time()  # of the first byte: the body may trail
    body = reply.read()
    if reply.status != 200:
        raise ValueError(f"HTTP {reply.status}")
    return ClockSample(asked_s, answered_s, _unix_s(int(json.loads(body)["serverTime"])))


def _unix_s(stamp: int) -> float:
    # Milliseconds from who does not know the header; 10^14 ms is the year 5138.
    return stamp / 1e6 if stamp > 10**14 else stamp / 1e3


def _open(url: str, tls: ssl.SSLContext | None) -> HTTPConnection:
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme == "https":
        return HTTPSConnection(
            host, parts.port, timeout=TIMEOUT_S, context=tls or ssl.create_default_context()
        )
    return HTTPConnection(host, parts.port, timeout=TIMEOUT_S)


def _path(url: str, name: str) -> str:
    return f"{urlsplit(url).path}/api/v3/{name}"


def _reason(exc: Exception) -> str:
    if isinstance(exc, TimeoutError):
        return f"nothing answered within {TIMEOUT_S:g} s"
    return f"no HTTP answer: {exc or type(exc).__name__}"
