"""A standby or observer compares what it hears with what the writer writes, symbol by symbol."""

import asyncio
from collections.abc import Mapping
from typing import Any

import structlog

from k2.errors import RetryError
from k2.ingestion.host import Host
from k2.ingestion.shard import Role, Shard
from k2.ingestion.trouble import Trouble
from k2.ingestion.workers import Worker
from k2.kafka.trade_follower import TradeFollower
from k2.market import Side, Trade
from k2.market.epoch import epoch_us
from k2.observability import metrics
from k2.tape.comparison import Comparison, Figures, Print

READ_S = 0.5
TELL_EVERY_S = 60.0
RETRY_DELAY_S = 1.0

_log = structlog.get_logger()


class Comparing:
    """Compares one shard for as long as another process writes it."""

    def __init__(
        self, shard: Shard, follower: TradeFollower, *, worker: Worker, host: Host
    ) -> None:
        """Join a shard with a reader of its trades."""
        self._shard = shard
        self._follower = follower
        self._worker = worker
        self._host = host
        self._unreadable = Trouble("comparison_waits", host.monotonic_s, shard=shard.settings.shard)
        self._comparison = Comparison()
        self._told: dict[str, tuple[int, ...]] = {}

    @property
    def figures(self) -> Mapping[str, Figures]:
        """Symbol to how far both sides agree."""
        return self._comparison.figures

    def heard(self, trade: Trade) -> None:
        """Take in the first copy of a trade our legs brought."""
        if self._shard.role is Role.STANDBY:
            self._comparison.heard(trade, self._host.monotonic_s())

    async def run(self) -> None:
        """Compare for ever."""
        tell_at_s = self._host.monotonic_s() + TELL_EVERY_S
        while True:
            if self._shard.role is not Role.STANDBY:
                self._comparison.forget()
                await self._worker.run(self._follower.close)
                await asyncio.sleep(RETRY_DELAY_S)
                continue
            try:
                records = await self._worker.run(lambda: self._follower.read(READ_S))
            except RetryError as exc:
                self._unreadable.met(str(exc))
                await asyncio.sleep(RETRY_DELAY_S)
                continue
            self._unreadable.over()
            now_s = self._host.monotonic_s()
            for record in records:
                self._written(record, now_s)
            self._comparison.settle(now_s)
            if now_s >= tell_at_s:
                tell_at_s = now_s + TELL_EVERY_S
                self.tell()

    def tell(self) -> None:
        """Log and count what was compared since the last time."""
        totals: dict[str, int] = {}
        for symbol, figures in self.figures.items():
            now = (figures.equal, figures.different, figures.not_heard, figures.not_written)
            before = self._told.get(symbol, (0, 0, 0, 0))
            self._told[symbol] = now
            names = ("equal", "different", "not_heard", "not_written")
            for name, count, counted in zip(names, now, before, strict=True):
                metrics.compared.labels(symbol, name).inc(count - counted)
                totals[name] = totals.get(name, 0) + count
        if totals:
            examples = {s: f.example for s, f in self.figures.items() if f.example}
            _log.info(
                "compared_with_writer", shard=self._shard.settings.shard, **totals, last=examples
            )

    def _written(self, record: Mapping[str, Any], now_s: float) -> None:
        theirs = Print(
            record["price"],
            record["quantity"],
            Side(record["taker_side"]),
            record["first_trade_id"],
            record["last_trade_id"],
            epoch_us(record["trade_ts_us"]),
        )
        self._comparison.written(record["symbol"], record["source_sequence"], theirs, now_s)
