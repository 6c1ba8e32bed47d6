"""Quiet symbols: a silence shows no missing id, so REST is asked what the newest one is.

That catches the trades before a silence that nobody delivered, and streams that were acknowledged
and are deaf.
"""

import asyncio
from collections.abc import Callable, Mapping

import structlog

from k2.errors import RetryError
from k2.ingestion.host import Host
from k2.ingestion.ports import Rest
from k2.ingestion.shard import Shard
from k2.observability import metrics
from k2.tape.silence import Silence

LOOK_EVERY_S = 5.0
PROBE_EVERY_S = 60.0
PROBES_PER_LOOK = 5
"""60 a minute, 240 of its weight: a small part of what healing may spend."""

OVERDUE_AGAIN_S = 30.0
"""A symbol that is silent for too long is asked about this often."""

_log = structlog.get_logger()


class QuietProbe:
    """Watches over the symbols of one shard, for as long as this process writes it."""

    def __init__(
        self,
        shard: Shard,
        rest: Rest,
        *,
        silences: Mapping[str, Silence],
        found: Callable[[str, int], None],
        host: Host,
    ) -> None:
        """Join a shard with REST; ``found`` is told of ids the legs should have brought."""
        self._shard = shard
        self._rest = rest
        self._silences = silences
        self._found = found
        self._host = host
        self._probed_s: dict[str, float] = {}
        self._silent: set[str] = set()

    async def run(self) -> None:
        """Watch for ever."""
        try:
            await self._watch()
        finally:
            for symbol in self._silent:  # whoever writes next says so
                metrics.symbol_silent.labels(symbol).set(0)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            now_s = self._host.monotonic_s()
            overdue = [symbol for symbol in self._shard.tapes if self._overdue(symbol, now_s)]
            self._tell(set(overdue), now_s)
            quiet = [s for s in self._shard.tapes if self._due(s, now_s, every_s=PROBE_EVERY_S)]
            quiet.sort(key=self._heard_s)
            urgent = [
                symbol
                for symbol in overdue
                if now_s - self._probed_s.get(symbol, float("-inf")) >= OVERDUE_AGAIN_S
            ]
            for symbol in dict.fromkeys([*urgent, *quiet][:PROBES_PER_LOOK]):
                await self._probe(symbol)

    def _overdue(self, symbol: str, now_s: float) -> bool:
        silence = self._silences.get(symbol)
        return silence is not None and silence.overdue(now_s)

    def _heard_s(self, symbol: str) -> float:
        silence = self._silences.get(symbol)
        return max(self._probed_s.get(symbol, 0.0), silence.last_s if silence else 0.0)

    def _due(self, symbol: str, now_s: float, *, every_s: float) -> bool:
        return now_s - self._heard_s(symbol) >= every_s

    def _tell(self, overdue: set[str], now_s: float) -> None:
        for symbol in sorted(overdue - self._silent):
            silence = self._silences[symbol]
            _log.warning(
                "symbol_silent",
                symbol=symbol,
                silent_s=round(now_s - silence.last_s, 1),
                usual_at_most_s=round(silence.allowed_s, 1),
            )
            metrics.symbol_silent.labels(symbol).set(1)
        for symbol in sorted(self._silent - overdue):
            _log.info("symbol_trades_again", symbol=symbol)
            metrics.symbol_silent.labels(symbol).set(0)
        self._silent = overdue

    async def _probe(self, symbol: str) -> None:
        self._probed_s[symbol] = self._host.monotonic_s()
        try:
            newest_id = await self._rest.newest_id(symbol)
        except RetryError as exc:
            _log.info("probe_waits", symbol=symbol, reason=str(exc))
            return
        tape = self._shard.tapes.get(symbol)
        if tape is None or tape.next_id is None or newest_id is None:
            return
        if newest_id >= tape.next_id:
            _log.warning("quiet_symbol_had_traded", symbol=symbol, newest_id=newest_id)
            self._found(symbol, newest_id)
