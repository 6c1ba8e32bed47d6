"""The venue's limit on connection attempts, kept across restarts in a small file.

The venue counts attempts per address, so every instance with the same file shares one count.
"""

import asyncio
import fcntl
from pathlib import Path

import msgspec
import structlog

from k2.binance.limits import connect_wait_s, recent_connects_s
from k2.ingestion.host import Host

_log = structlog.get_logger()


class ConnectBudget:
    """At most a share of the address's 300 attempts in 5 minutes."""

    def __init__(self, path: Path, *, share: float, host: Host) -> None:
        """Name the file; its folder is made at the first attempt."""
        self._path = path
        self._share = share
        self._host = host

    async def take(self) -> None:
        """Wait until another attempt is allowed, and count it."""
        while (wait_s := await asyncio.to_thread(self._take)) > 0:
            _log.warning("connect_waits", why="rate limit of the venue", wait_s=round(wait_s, 1))
            await asyncio.sleep(wait_s)

    def _take(self) -> float:
        now_s = self._host.wall_s()
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                file.seek(0)
                attempts_s = _attempts(file.read())
                recent_s = recent_connects_s(attempts_s, wall_s=now_s)
                wait_s = connect_wait_s(recent_s, share=self._share, wall_s=now_s)
                if not wait_s:
                    recent_s.append(round(now_s, 1))
                if recent_s != attempts_s:
                    file.truncate(0)
                    file.write(msgspec.json.encode(recent_s))
        except OSError as exc:
            # A full disk must not keep us from the exchange; one attempt goes uncounted.
            _log.warning("connect_count_not_kept", path=str(self._path), reason=str(exc))
            return 0.0
        return wait_s


def _attempts(text: bytes) -> list[float]:
    try:
        return msgspec.json.decode(text, type=list[float])
    except msgspec.MsgspecError:
        return []  # empty or damaged: counted anew
