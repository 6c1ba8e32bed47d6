"""Bad input costs that record and nothing else: a dead letter, a counter, a reason."""

from typing import Any

import msgspec
import structlog

from k2.binance.frames import original_event
from k2.errors import RejectError
from k2.kafka.dead_letters import DeadLetters
from k2.market import BadRow, Trade
from k2.observability import metrics

_log = structlog.get_logger()


class Rejects:
    """Buries what could not be used."""

    def __init__(self, dead_letters: DeadLetters) -> None:
        """Name the place."""
        self._dead_letters = dead_letters

    def frame(self, payload: bytes, exc: RejectError) -> str | None:
        """Bury a frame; return the symbol it names, if it does."""
        original = original_event(payload)
        symbol = original.get("s")
        _log.warning(
            str(exc), error_type=exc.error_type, raw=payload[:300].decode("utf-8", "replace")
        )
        name = symbol if isinstance(symbol, str) else None
        self._bury(original, str(exc), exc.error_type, name)
        return name

    def row(self, row: BadRow) -> None:
        """Bury a row of REST."""
        _log.warning(row.error, source_id=row.source_id, error_type=row.error_type)
        self._bury(row.original, row.error, row.error_type, row.original.get("s"))

    def trade(self, trade: Trade) -> None:
        """Bury a trade whose id the exchange says it does not have."""
        error = f"Invalid field: id {trade.source_id} is far beyond the exchange's newest"
        _log.warning(error, symbol=trade.symbol)
        original = {**msgspec.to_builtins(trade), "s": trade.symbol}
        self._bury(original, error, "invalid_field", trade.symbol)

    def _bury(
        self, original: dict[str, Any], error: str, error_type: str, symbol: str | None
    ) -> None:
        metrics.message_errors.labels(error_type).inc()
        failed = self._dead_letters.failed
        self._dead_letters.write(
            original=original, error=error, error_type=error_type, symbol=symbol
        )
        if self._dead_letters.failed > failed:
            metrics.dead_letter_failures.inc()
        else:
            metrics.dead_letters.labels(error_type).inc()
