"""Where trades go that a full hold cannot keep: a bounded file, gone with the process.

Nothing here is needed for the promise: whatever is not kept comes back by REST. It saves REST
weight when a hole stays open for long, which is when weight is scarce.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

import msgspec
import structlog

from k2.market import Trade

SPILL_MAX_BYTES = 256 << 20
"""About a million trades, of all symbols together."""

_LENGTH_BYTES = 4

_log = structlog.get_logger()
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Trade).decode


class _Queue:
    """One symbol's trades, first in, first out."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.read_at = 0
        self.written_to = 0
        self.count = 0
        self.last_id = -1


class Spill:
    """Keeps trades in order of arrival, per symbol."""

    def __init__(
        self,
        directory: Path,
        *,
        max_bytes: int = SPILL_MAX_BYTES,
        open_file: Callable[[Path], IO[bytes]] | None = None,
    ) -> None:
        """Name the folder; a file without a name is made in it when first needed."""
        self.bytes = 0
        self._directory = directory
        self._max_bytes = max_bytes
        self._open_file = open_file or _nameless
        self._queues: dict[str, _Queue] = {}
        self._failed = False

    def count(self, symbol: str) -> int:
        """Return how many trades of a symbol are kept."""
        queue = self._queues.get(symbol)
        return queue.count if queue is not None else 0

    def holds(self, trade: Trade) -> bool:
        """Say whether a trade is another leg's copy of what is kept."""
        queue = self._queues.get(trade.symbol)
        return queue is not None and trade.source_id <= queue.last_id

    def put(self, trade: Trade) -> bool:
        """Keep a trade; say whether it is kept (a copy is kept once)."""
        if self.holds(trade):
            return True
        queue = self._queues.get(trade.symbol)
        body = _encode(trade)
        size = _LENGTH_BYTES + len(body)
        if self.bytes + size > self._max_bytes:
            return False
        try:
            if queue is None:
                queue = self._queues[trade.symbol] = _Queue(self._open_file(self._directory))
            queue.file.seek(queue.written_to)
            written = queue.file.write(len(body).to_bytes(_LENGTH_BYTES, "big") + body)
        except OSError as exc:
            self._tell(str(exc))
            return False
        if written != size:  # a disk that was full in the middle of it
            self._tell(f"{written} of {size} bytes were written")
            return False
        queue.written_to += size
        queue.count += 1
        queue.last_id = trade.source_id
        self.bytes += size
        return True

    def take(self, symbol: str, at_most: int) -> list[Trade]:
        """Return the oldest trades of a symbol, and keep them no more.

        Where the disk does not give them back, the rest is forgotten: it comes back by REST.
        """
        queue = self._queues.get(symbol)
        if queue is None:
            return []
        trades: list[Trade] = []
        try:
            queue.file.seek(queue.read_at)
            while queue.count and len(trades) < at_most:
                length = int.from_bytes(queue.file.read(_LENGTH_BYTES), "big")
                trades.append(_decode(queue.file.read(length)))
                queue.read_at += _LENGTH_BYTES + length
                queue.count -= 1
        except (OSError, msgspec.MsgspecError) as exc:
            self._tell(str(exc))
            queue.count = 0
        if not queue.count:
            self.forget(symbol)
        return trades

    def forget_written(self, symbol: str, next_id: int) -> None:
        """Keep nothing of a symbol whose tape has passed all that is kept of it."""
        queue = self._queues.get(symbol)
        if queue is not None and queue.last_id < next_id:
            self.forget(symbol)

    def forget(self, symbol: str) -> None:
        """Keep nothing of a symbol."""
        queue = self._queues.pop(symbol, None)
        if queue is not None:
            queue.file.close()
            self.bytes -= queue.written_to

    def _tell(self, reason: str) -> None:
        if not self._failed:
            _log.warning("spill_not_possible", path=str(self._directory), reason=reason)
        self._failed = True


def _nameless(directory: Path) -> IO[bytes]:
    directory.mkdir(parents=True, exist_ok=True)
    # Without a buffer: what a full disk did not take must not come up again at the next seek.
    return tempfile.TemporaryFile(dir=directory, prefix="spill-", buffering=0)
