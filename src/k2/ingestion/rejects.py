"""Bad input costs that record and nothing else: a dead letter, a counter, a reason."""

import time
from collections.abc import Callable
from typing import Any

import msgspec
import structlog

from k2.binance.frames import original_event
from k2.errors import RejectError
from k2.kafka.dead_letters import DeadLetters
from k2.market import BadRow, Trade
from k2.observability import metrics

LOGGED_PER_MINUTE = 60
"""Rejects that are logged one by one; of a flood the rest is in counters and letters."""

_log = structlog.get_logger()


class Rejects:
    """Buries what could not be used."""

    def __init__(
        self, dead_letters: DeadLetters, *, monotonic_s: Callable[[], float] = time.monotonic
    ) -> None:
        """Name the place."""
        self._dead_letters = dead_letters
        self._monotonic_s = monotonic_s
        self._minute_began_s = float("-inf")
        self._logged = 0
        self._not_logged = 0

    def frame(self, payload: bytes, exc: RejectError) -> str | None:
        """Bury a frame; return the symbol it names, if it does."""
        original = original_event(payload)
        symbol = original.get("s")
        self._say(str(exc), error_type=exc.error_type, raw=payload[:300].decode("utf-8", "replace"))
        name = symbol if isinstance(symbol, str) else None
        self._bury(original, str(exc), exc.error_type, name)
        return name

    def row(self, row: BadRow) -> None:
        """Bury a row of REST."""
        self._say(row.error, source_id=row.source_id, error_type=row.error_type)
        symbol = row.original.get("s")
        name = symbol if isinstance(symbol, str) else None
        self._bury(row.original, row.error, row.error_type, name)

    def trade(self, trade: Trade) -> None:
        """Bury a trade whose id the exchange says it does not have."""
        error = f"Invalid field: id {trade.source_id} is far beyond the exchange's newest"
        self._say(error, symbol=trade.symbol)
        original = {**msgspec.to_builtins(trade), "s": trade.symbol}
        self._bury(original, error, "invalid_field", trade.symbol)

    def _bury(
        self, original: dict[str, Any], error: str, error_type: str, symbol: str | None
    ) -> None:
        metrics.message_errors.labels(error_type).inc()
        self._dead_letters.write(
            original=original, error=error, error_type=error_type, symbol=symbol
        )

    def _say(self, reason: str, **fields: Any) -> None:
        """Log why, unless the minute has had its share: writing lines takes the capture's time."""
        now_s = self._monotonic_s()
        if now_s - self._minute_began_s >= 60:
            if self._not_logged:
                _log.warning("rejects_not_logged", count=self._not_logged)
            self._minute_began_s, self._logged, self._not_logged = now_s, 0, 0
        if self._logged >= LOGGED_PER_MINUTE:
            self._not_logged += 1
            return
        self._logged += 1
        _log.warning(reason, **fields)
