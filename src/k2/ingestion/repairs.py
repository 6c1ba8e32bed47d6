"""Late trades: what was declared missing and came to light after all goes to ``.repairs``."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby

import structlog

from k2.errors import RetryError
from k2.ingestion.commits import Told
from k2.ingestion.host import Host
from k2.ingestion.open_ids import OpenIds
from k2.ingestion.ports import Rest
from k2.ingestion.shard import Shard
from k2.kafka.gap_records import encode_repaired
from k2.kafka.position import OpenGap, position_after_repair
from k2.kafka.transaction import Record
from k2.market import BadRow, IdRange, Trade
from k2.observability import metrics
from k2.tape.arbiter import Placed

LOOK_EVERY_S = 60.0
AGE_SHARE = 0.25
"""A gap is looked for again when it is older by this share, and at least hourly."""

LOOK_EVERY_MAX_S = 3600.0

_log = structlog.get_logger()


class Repairs:
    """Looks for the open gaps of one shard, for as long as this process writes it."""

    def __init__(
        self, shard: Shard, rest: Rest, *, reject_row: Callable[[BadRow], None], host: Host
    ) -> None:
        """Join a shard with REST and the dead letters."""
        self._shard = shard
        self._rest = rest
        self._reject_row = reject_row
        self._host = host
        self._looked_s: dict[tuple[str, int], float] = {}
        self._open_ids = OpenIds()

    async def run(self) -> None:
        """Look for ever."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            now_s = self._host.wall_s()
            gaps = self._shard.told.position.open_gaps
            kept = {(gap.symbol, gap.ids.first_id) for gap in gaps}
            self._looked_s = {key: at_s for key, at_s in self._looked_s.items() if key in kept}
            for gap in gaps:
                # One that left is looked for again once it is recorded again.
                if gap.symbol in self._shard.tapes and self._due(gap, now_s):
                    await self._look(gap)

    def late(self, trade: Trade) -> None:
        """Take a trade a leg brought after its id was declared missing."""
        if self._is_missing(trade, self._shard.told):
            self.write(trade.symbol, [trade], [])

    def _is_missing(self, trade: Trade, told: Told) -> bool:
        return self._open_ids.has(told.position.open_gaps, trade.symbol, trade.source_id)

    def _due(self, gap: OpenGap, now_s: float) -> bool:
        age_s = now_s - gap.declared_ts_us / 1e6
        every_s = min(LOOK_EVERY_MAX_S, max(LOOK_EVERY_S, age_s * AGE_SHARE))
        key = (gap.symbol, gap.ids.first_id)
        if now_s - self._looked_s.get(key, float("-inf")) < every_s:
            return False
        self._looked_s[key] = now_s
        return True

    async def _look(self, gap: OpenGap) -> None:
        try:
            rows = await self._rest.rows_from(gap.symbol, from_id=gap.ids.first_id)
        except RetryError as exc:
            _log.info("repair_waits", symbol=gap.symbol, reason=str(exc))
            return
        found = [row for row in rows if row.source_id in gap.ids]
        trades = [row for row in found if isinstance(row, Trade)]
        bad_rows = [row for row in found if isinstance(row, BadRow)]
        for row in bad_rows:
            self._reject_row(row)  # declared it stays, but nothing better will come
        if found:
            self.write(gap.symbol, trades, [row.source_id for row in bad_rows])

    def write(
        self, symbol: str, trades: Sequence[Trade], given_up: Sequence[int]
    ) -> "asyncio.Future[bool]":
        """Have trades of open gaps written; look no more for them, nor for what is given up.

        The future is true once that is committed, false if none of it was open any more.
        """
        late: list[Trade] = []  # what of the trades is still missing when their turn comes

        def records() -> Iterable[Record]:
            yield from repair_records(self._shard, late)
            now_us = self._host.wall_ns() // 1000
            for ids in ranges([trade.source_id for trade in late]):
                gaps = self._shard.settings.names.gaps
                yield Record(
                    gaps, symbol.encode(), encode_repaired(symbol, ids, repaired_ts_us=now_us)
                )

        def change(told: Told) -> Told | None:
            late[:] = [trade for trade in trades if self._is_missing(trade, told)]
            closed = [*(trade.source_id for trade in late), *given_up]
            after = position_after_repair(told.position, symbol, closed)
            if after == told.position:
                return None  # somebody repaired them before
            return told._replace(position=after)

        def settled(done: "asyncio.Future[bool]") -> None:
            if done.cancelled() or not done.result() or not late:
                return
            metrics.repaired.labels(symbol).inc(len(late))
            _log.info("gap_repaired", symbol=symbol, ids=len(late), first_id=late[0].source_id)

        done = self._shard.do(records, change)
        done.add_done_callback(settled)
        return done


def repair_records(shard: Shard, trades: Sequence[Trade]) -> Iterable[Record]:
    """Return records of ``.repairs`` for trades of one symbol, ascending by id."""
    before = [None, *(trade.source_id for trade in trades)]
    for trade, previous_id in zip(trades, before, strict=False):
        follows = previous_id is not None and previous_id + 1 == trade.source_id
        placed = Placed(trade, previous_id if follows else None)
        yield Record(shard.settings.names.repairs, trade.symbol.encode(), shard.encode(placed))


def ranges(source_ids: Sequence[int]) -> list[IdRange]:
    """Return ascending ids as runs of consecutive ones."""
    runs = []
    for _, group in groupby(enumerate(sorted(source_ids)), key=lambda pair: pair[1] - pair[0]):
        ids = [source_id for _, source_id in group]
        runs.append(IdRange(ids[0], ids[-1]))
    return runs
