"""Dead letters: bad input as it came, on disk and in Kafka, one JSON object each (R144, R145).

Whoever has a letter never waits: a thread of its own does the writing. What it cannot keep up with,
a full disk and a Kafka that is away cost letters, which are counted, and nothing else.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from threading import Condition, Thread
from typing import Any, NamedTuple

import msgspec
import structlog

from k2.kafka.letter_files import LetterFiles
from k2.kafka.letter_topic import LetterTopic

WAITING_MAX_LETTERS = 10_000
WAITING_MAX_BYTES = 32 << 20
AT_ONCE_BYTES = 1 << 20
SYNC_EVERY_S = 1.0
TELL_EVERY_S = 60.0
CLOSE_TIMEOUT_S = 2.0

_log = structlog.get_logger()


class Counted(NamedTuple):
    """Told, on the thread that writes, what has become of letters."""

    written: Callable[[str], None]
    """Of each letter that is in the file: its error type."""
    not_written: Callable[[int], None]
    """How many are in no file: the disk refused them, or there were too many at once."""
    not_sent: Callable[[int], None]
    """How many are not in Kafka."""


def _nobody(_what: Any) -> None:
    """Nobody to tell."""


NOT_COUNTED = Counted(_nobody, _nobody, _nobody)


class _Waiting(NamedTuple):
    line: bytes
    error_type: str
    symbol: str | None
    written_at: datetime


class DeadLetters:
    """Takes letters from any thread; writes them on one of its own."""

    def __init__(
        self,
        place: Path | LetterFiles,
        *,
        topic: str,
        connection_id: str,
        kafka: LetterTopic | None = None,
        counted: Counted = NOT_COUNTED,
        utc_now: Callable[[], datetime] = lambda: datetime.now(UTC),
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Name the places; the thread, the directory and the producer come with the first letter.

        Args:
            place: The directory, or its files with bounds of their own.
            topic: What the input was meant for, as letters say it.
            connection_id: Who had it.
            kafka: Where letters go besides; None: on disk only.
            counted: Told what has become of each.
            utc_now: Names a letter's time and its file.
            monotonic_s: Spaces syncs and log lines.
        """
        self.written = 0
        self.failed = 0
        """Letters that are in no file."""
        self._files = place if isinstance(place, LetterFiles) else LetterFiles(place)
        self._kafka = kafka
        self._counted = counted
        self._topic = topic
        self._connection_id = connection_id
        self._utc_now = utc_now
        self._monotonic_s = monotonic_s
        self._sequence = 0
        self._waiting: deque[_Waiting] = deque()
        self._waiting_bytes = 0
        self._busy = False
        self._too_many = 0
        self._closing = False
        self._changed = Condition()
        self._thread: Thread | None = None
        self._synced_s = float("-inf")
        self._not_sent = 0
        self._told_s: dict[str, float] = {}
        self._untold: dict[str, int] = {}

    def write(
        self,
        *,
        original: dict[str, Any],
        error: str,
        error_type: str,
        symbol: str | None,
        topic: str | None = None,
        schema_version: str = "v2",
    ) -> None:
        """Have a letter written; ``original`` is the bare event, or ``{"_raw": text}``."""
        now = self._utc_now()
        with self._changed:
            self._sequence += 1
            sequence = self._sequence
            if self._full() or self._closing:
                # Not even encoded: a flood of bad input must not become a flood of work.
                self._too_many += 1
                self._changed.notify_all()
                return
        line = msgspec.json.encode(
            {
                "timestamp": now.isoformat(),
                "error": error,
                "error_type": error_type,
                "topic": topic or self._topic,
                "symbol": symbol,
                "connection_id": self._connection_id,
                "sequence": sequence,
                "schema_version": schema_version,
                "original_message": original,
            }
        )
        with self._changed:
            self._waiting.append(_Waiting(line, error_type, symbol, now))
            self._waiting_bytes += len(line)
            if self._thread is None:
                self._thread = Thread(target=self._run, name="dead-letters", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    @property
    def sent(self) -> int:
        """Letters Kafka has."""
        return self._kafka.sent if self._kafka is not None else 0

    @property
    def not_sent(self) -> int:
        """Letters Kafka does not have and will not get."""
        return self._kafka.not_sent if self._kafka is not None else 0

    def flush(self, timeout_s: float = CLOSE_TIMEOUT_S) -> bool:
        """Wait until nothing waits for the disk; say whether it came to that."""
        with self._changed:
            return self._changed.wait_for(self._idle, timeout_s)

    def close(self, timeout_s: float = CLOSE_TIMEOUT_S) -> None:
        """Write what waits, within bounds: a disk that hangs keeps nobody from ending."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(2 * timeout_s)

    # On the thread.

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(self._due, SYNC_EVERY_S if self._restless() else None)
                batch = self._take()
                too_many, self._too_many = self._too_many, 0
                closing = self._closing and not self._waiting
                self._busy = True
            self._lose(too_many, "too_many_dead_letters", why="more than can be written at once")
            self._write(batch)
            self._sync(at_once=closing)
            self._send(batch)
            if closing and self._kafka is not None:
                self._kafka.close(CLOSE_TIMEOUT_S)
                self._account()
            with self._changed:
                self._busy = False
                self._changed.notify_all()
                if closing and not self._waiting:
                    return

    def _take(self) -> list[_Waiting]:
        batch, batch_bytes = [], 0
        while self._waiting and batch_bytes < AT_ONCE_BYTES:
            batch.append(self._waiting.popleft())
            batch_bytes += len(batch[-1].line)
        self._waiting_bytes -= batch_bytes
        return batch

    def _write(self, batch: Sequence[_Waiting]) -> None:
        by_day: dict[Any, list[_Waiting]] = {}
        for one in batch:
            by_day.setdefault(one.written_at.date(), []).append(one)
        for day, letters in by_day.items():
            try:
                self._files.append([one.line for one in letters], day=day)
            except OSError as exc:
                self._lose(len(letters), "dead_letter_write_failed", why=str(exc))
                continue
            self.written += len(letters)
            for one in letters:
                self._counted.written(one.error_type)
        if self._files.removed:
            _log.warning("dead_letter_files_removed", files=self._files.removed, why="size bound")
            self._files.removed = []

    def _sync(self, *, at_once: bool) -> None:
        now_s = self._monotonic_s()
        if self._files.unsynced and (at_once or now_s - self._synced_s >= SYNC_EVERY_S):
            self._synced_s = now_s
            try:
                self._files.sync()
            except OSError as exc:
                self._tell("dead_letter_sync_failed", 1, why=str(exc))

    def _send(self, batch: Sequence[_Waiting]) -> None:
        if self._kafka is None:
            return
        for one in batch:
            self._kafka.send(one.line, symbol=one.symbol)
        self._kafka.look()
        self._account()

    def _account(self) -> None:
        if self._kafka is not None and (lost := self._kafka.not_sent - self._not_sent):
            self._not_sent += lost
            self._counted.not_sent(lost)
            self._tell("dead_letters_not_sent", lost, why=self._kafka.problem)

    def _lose(self, letters: int, event: str, *, why: str) -> None:
        if letters:
            self.failed += letters
            self._counted.not_written(letters)
            self._tell(event, letters, why=why)

    def _tell(self, event: str, letters: int, *, why: str) -> None:
        """Log the first of each minute, with what was not told before: a full disk stays full."""
        letters += self._untold.pop(event, 0)
        now_s = self._monotonic_s()
        if now_s - self._told_s.get(event, float("-inf")) < TELL_EVERY_S:
            self._untold[event] = letters
            return
        self._told_s[event] = now_s
        place = str(self._files.directory)
        _log.error(event, letters=letters, directory=place, reason=why)

    def _full(self) -> bool:
        return len(self._waiting) >= WAITING_MAX_LETTERS or self._waiting_bytes >= WAITING_MAX_BYTES

    def _due(self) -> bool:
        return bool(self._waiting) or bool(self._too_many) or self._closing

    def _restless(self) -> bool:
        """Whether there is something to look after without a new letter."""
        waits = self._kafka is not None and self._kafka.waiting > 0
        return waits or self._files.unsynced

    def _idle(self) -> bool:
        return not (self._waiting or self._too_many or self._busy)
