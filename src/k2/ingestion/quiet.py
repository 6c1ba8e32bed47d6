"""Quiet symbols: a silence shows no missing id, so REST is asked what the newest one is.

That catches the trades before a silence that nobody delivered, and streams that were acknowledged
and are deaf.
"""

import asyncio
from collections.abc import Callable, Mapping

import structlog

from k2.binance.limits import PATHS, WEIGHT_PER_MINUTE, WEIGHTS
from k2.errors import RetryError
from k2.ingestion.host import Host
from k2.ingestion.ports import Rest
from k2.ingestion.shard import Shard
from k2.kafka.refusals import check_newest
from k2.market import StreamKind, Trade
from k2.observability import metrics
from k2.tape.silence import Silence

LOOK_EVERY_S = 5.0
PROBE_EVERY_S = 60.0
PROBES_SHARE = 0.08
"""Part of the weight a process may spend: healing needs the rest."""

OVERDUE_AGAIN_S = 30.0
"""A symbol that is silent for too long is asked about this often."""

YOUNGER_US = 1_000_000
"""By so much a trade is later than another for certain, whatever the order of their ids."""

_log = structlog.get_logger()


class ProbePace:
    """When a process may ask about its next quiet symbol, however many shards it writes.

    Their weight is at most ``PROBES_SHARE`` of what the process may spend. At the default share of
    the address that is 240 a minute: 60 questions about aggregate trades, 9 about single fills.
    """

    def __init__(self, kind: StreamKind, *, share: float, host: Host) -> None:
        """Name the stream, and the part of the address's weight that the process may spend."""
        weight_per_minute = PROBES_SHARE * share * WEIGHT_PER_MINUTE
        self._every_s = 60 * WEIGHTS[PATHS[kind]] / weight_per_minute
        self._host = host
        self._turn = asyncio.Lock()
        self._free_s = float("-inf")

    async def wait(self) -> None:
        """Wait for a turn; whoever waits first has the first, so no shard starves another."""
        async with self._turn:
            await asyncio.sleep(max(0.0, self._free_s - self._host.monotonic_s()))
            self._free_s = self._host.monotonic_s() + self._every_s


class QuietProbe:
    """Watches over the symbols of one shard, for as long as this process writes it."""

    def __init__(
        self,
        shard: Shard,
        rest: Rest,
        *,
        silences: Mapping[str, Silence],
        found: Callable[[str, int], None],
        pace: ProbePace,
        host: Host,
    ) -> None:
        """Join a shard with REST; ``found`` is told of ids the legs should have brought."""
        self._shard = shard
        self._rest = rest
        self._silences = silences
        self._found = found
        self._pace = pace
        self._host = host
        self._probed_s: dict[str, float] = {}
        self._silent: set[str] = set()
        self._back: set[str] = set()
        """Symbols whose newest id was below their tape's last one at the last look."""
        self._overdue_next = True

    async def run(self) -> None:
        """Watch for ever.

        Raises:
            StopError: If the exchange has begun a symbol's ids anew.
        """
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._watch())
                group.create_task(self._ask())
        finally:
            for symbol in self._silent:  # whoever writes next says so
                metrics.symbol_silent.labels(symbol).set(0)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            now_s = self._host.monotonic_s()
            self._tell({symbol for symbol in self._shard.tapes if self._overdue(symbol, now_s)})

    async def _ask(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            while self._due() is not None:
                await self._pace.wait()
                if (symbol := self._due()) is not None:  # as of now, not of before the wait
                    await self._probe(symbol)

    def _due(self) -> str | None:
        """Return the symbol to ask about next, if any.

        Overdue symbols and merely quiet ones take turns: a halt makes many overdue for hours.
        """
        now_s = self._host.monotonic_s()
        overdue: list[str] = []
        quiet: list[str] = []
        for symbol in self._shard.tapes:
            if self._overdue(symbol, now_s):
                if now_s - self._asked_s(symbol) >= OVERDUE_AGAIN_S:
                    overdue.append(symbol)
            elif now_s - self._heard_s(symbol) >= PROBE_EVERY_S:
                quiet.append(symbol)
        if overdue and (self._overdue_next or not quiet):
            return min(overdue, key=self._asked_s)
        return min(quiet, key=self._heard_s, default=None)

    def _overdue(self, symbol: str, now_s: float) -> bool:
        silence = self._silences.get(symbol)
        return silence is not None and silence.overdue(now_s)

    def _asked_s(self, symbol: str) -> float:
        return self._probed_s.get(symbol, float("-inf"))

    def _heard_s(self, symbol: str) -> float:
        silence = self._silences.get(symbol)
        return max(self._asked_s(symbol), silence.last_s if silence else 0.0)

    def _tell(self, overdue: set[str]) -> None:
        now_s = self._host.monotonic_s()
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
        now_s = self._host.monotonic_s()
        self._overdue_next = not self._overdue(symbol, now_s)
        self._probed_s[symbol] = now_s
        try:
            newest_id = await self._rest.newest_id(symbol)
        except RetryError as exc:
            _log.info("probe_waits", symbol=symbol, reason=str(exc))
            return
        tape = self._shard.tapes.get(symbol)
        if tape is None or tape.next_id is None or newest_id is None:
            return
        if newest_id < tape.next_id - 1:
            await self._went_back(symbol, newest_id)
            return
        self._back.discard(symbol)
        if newest_id >= tape.next_id:
            _log.warning("quiet_symbol_had_traded", symbol=symbol, newest_id=newest_id)
            self._found(symbol, newest_id)

    async def _went_back(self, symbol: str, newest_id: int) -> None:
        """Refuse an exchange that began its ids anew: new trades would join the old tape.

        REST may trail, and seconds later it does not. So a second look has to show the same, and
        its newest trade has to be younger than the tape's last one.

        Raises:
            StopError: If it did.
        """
        where = self._shard.told.position.stands(symbol)
        if symbol not in self._back or where is None or where.last_ts_us is None:
            self._back.add(symbol)
            return
        await self._pace.wait()
        try:
            rows = await self._rest.rows_from(symbol, from_id=newest_id)
        except RetryError as exc:
            _log.info("probe_waits", symbol=symbol, reason=str(exc))
            return
        newest = rows[0] if rows else None
        if isinstance(newest, Trade) and newest.trade_ts_us - where.last_ts_us > YOUNGER_US:
            check_newest(symbol, where, newest_id=newest.source_id, newest_ts_us=newest.trade_ts_us)
