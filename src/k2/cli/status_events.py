"""Reads a running service's status: once, or as it is told each second."""

import asyncio
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from http.client import HTTPException

import aiohttp
import msgspec

from k2.errors import RetryError
from k2.ingestion.health import Health

DEADLINE_S = 4.0
"""A service that says nothing for so long does not answer."""

RETRY_DELAY_S = 1.0
EVENT_MAX_BYTES = 1 << 22
_PREFIX = b"data: "


def status_once(url: str) -> bytes:
    """Return a service's status as it says it, healthy or not (blocking).

    Raises:
        RetryError: If it does not answer.
    """
    try:
        return _asked(url)
    except (OSError, HTTPException, ValueError) as exc:
        raise RetryError(
            f"no answer from {url}/health: {str(exc).strip()}; "
            "is `k2 stream` or `k2 up` running there?"
        ) from exc


def _asked(url: str) -> bytes:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=DEADLINE_S) as reply:  # noqa: S310
            return bytes(reply.read(EVENT_MAX_BYTES))
    except urllib.error.HTTPError as exc:
        if exc.code == 503:
            return bytes(exc.read(EVENT_MAX_BYTES))
        raise RetryError(f"{url}/health answered {exc.code}") from exc


def decode_status(body: bytes) -> Health:
    """Return a status.

    Raises:
        RetryError: If it is none of a capture of this version.
    """
    try:
        return msgspec.json.decode(body, type=Health)
    except msgspec.MsgspecError as exc:
        raise RetryError(f"not the status of a capture of this version: {exc}") from exc


async def statuses(url: str) -> AsyncIterator[Health | RetryError]:
    """Yield each status as it is told, and why there is none; connects again for ever."""
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=DEADLINE_S, sock_read=DEADLINE_S)
    async with aiohttp.ClientSession(timeout=timeout, read_bufsize=EVENT_MAX_BYTES) as session:
        while True:
            try:
                async with session.get(f"{url}/events") as reply:
                    async for found in _told(reply):
                        yield found
            except (aiohttp.ClientError, OSError, ValueError) as exc:
                yield RetryError(str(exc) or "no answer in time")
            await asyncio.sleep(RETRY_DELAY_S)


async def _told(reply: aiohttp.ClientResponse) -> AsyncIterator[Health | RetryError]:
    """Yield what one connection tells, and last why it tells no more."""
    if reply.status != 200:
        yield RetryError(f"it answered {reply.status}")
        return
    async for line in reply.content:
        if line.startswith(_PREFIX):
            found = _decoded(line.removeprefix(_PREFIX))
            yield found
            if not isinstance(found, Health):
                return
    yield RetryError("it ended the connection")


def _decoded(body: bytes) -> Health | RetryError:
    try:
        return decode_status(body)
    except RetryError as exc:
        return exc
