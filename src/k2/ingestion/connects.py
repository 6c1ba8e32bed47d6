"""The venue's limit on connection attempts, kept across restarts in a small file.

The venue counts attempts per address, so every instance with the same file shares one count. What
the file cannot be given is counted in memory: a full disk must neither keep us from the exchange
nor the limit from us.
"""

import asyncio
import fcntl
import threading
from pathlib import Path

import msgspec
import structlog

from k2.binance.limits import connect_wait_s, recent_connects_s
from k2.errors import NOT_DECODABLE
from k2.ingestion.host import Host

_log = structlog.get_logger()


class ConnectBudget:
    """At most a share of the address's 300 attempts in 5 minutes."""

    def __init__(self, path: Path, *, share: float, host: Host) -> None:
        """Name the file; its folder is made at the first attempt."""
        self._path = path
        self._lock_path = path.with_name(f"{path.name}.lock")  # a file renamed over locks nothing
        self._aside_path = path.with_name(f"{path.name}.new")
        self._share = share
        self._host = host
        self._turn = threading.Lock()  # every leg connects
        self._kept_s: list[float] = []
        """Attempts that count, of everybody, as the file said last."""
        self._unkept_s: list[float] = []
        """Ours that it has not taken yet."""

    async def take(self) -> None:
        """Wait until another attempt is allowed, and count it."""
        while (wait_s := await asyncio.to_thread(self._take_turn)) > 0:
            _log.warning("connect_waits", why="rate limit of the venue", wait_s=round(wait_s, 1))
            await asyncio.sleep(wait_s)

    def _take_turn(self) -> float:
        with self._turn:
            return self._take()

    def _take(self) -> float:
        now_s = self._host.wall_s()
        wait_s: float | None = None
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._lock_path.open("ab") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                self._kept_s = kept_s = self._read()
                wait_s = self._count(now_s)
                attempts_s = self._attempts_s(now_s)
                if attempts_s != kept_s:
                    self._write(attempts_s)
                    self._kept_s, self._unkept_s = attempts_s, []
        except OSError as exc:
            _log.warning("connect_count_not_kept", path=str(self._path), reason=str(exc))
        return self._count(now_s) if wait_s is None else wait_s

    def _count(self, now_s: float) -> float:
        """Count an attempt, or return how long to wait before."""
        wait_s = connect_wait_s(self._attempts_s(now_s), share=self._share, wall_s=now_s)
        if not wait_s:
            self._unkept_s.append(round(now_s, 1))
        return wait_s

    def _attempts_s(self, now_s: float) -> list[float]:
        return recent_connects_s(sorted([*self._kept_s, *self._unkept_s]), wall_s=now_s)

    def _read(self) -> list[float]:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=list[float])
        except FileNotFoundError:
            return []
        except NOT_DECODABLE:
            return []  # damaged: counted anew

    def _write(self, attempts_s: list[float]) -> None:
        self._aside_path.write_bytes(msgspec.json.encode(attempts_s))
        self._aside_path.replace(self._path)
