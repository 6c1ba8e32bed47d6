"""Dead letters: bad input on disk as it came, one JSON line each (contract R144, R145)."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import structlog

_log = structlog.get_logger()


class DeadLetters:
    """A daily file ``binance-YYYYMMDD.jsonl`` (UTC); a full disk costs letters, never capture."""

    def __init__(self, directory: Path, *, topic: str, connection_id: str) -> None:
        """Name the place; the directory is made at the first letter."""
        self.written = 0
        self.failed = 0
        self._directory = directory
        self._topic = topic
        self._connection_id = connection_id
        self._sequence = 0

    def write(
        self,
        *,
        original: dict[str, Any],
        error: str,
        error_type: str,
        symbol: str | None,
        schema_version: str = "v2",
    ) -> None:
        """Append one letter; ``original`` is the bare event, or ``{"_raw": text}``."""
        now = datetime.now(UTC)
        self._sequence += 1
        line = msgspec.json.encode(
            {
                "timestamp": now.isoformat(),
                "error": error,
                "error_type": error_type,
                "topic": self._topic,
                "symbol": symbol,
                "connection_id": self._connection_id,
                "sequence": self._sequence,
                "schema_version": schema_version,
                "original_message": original,
            }
        )
        path = self._directory / f"binance-{now:%Y%m%d}.jsonl"
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            with path.open("ab") as file:
                file.write(line + b"\n")
        except OSError as exc:
            self.failed += 1
            _log.error("dead_letter_write_failed", path=str(path), error=str(exc))
            return
        self.written += 1
