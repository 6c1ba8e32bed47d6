"""The past, page by page downwards: the tape stays one piece from its first id on.

An operator's request is a record in ``.positions``. The writer takes it up, and every page goes to
``.repairs`` in one transaction with the new low-water mark: whoever goes on after a crash, goes on
exactly below what is written.
"""

import asyncio
from collections.abc import Callable, Iterable

import msgspec
import structlog

from k2.binance.rest import UnknownSymbolError
from k2.errors import RejectError
from k2.ingestion.commits import Told
from k2.ingestion.host import Host
from k2.ingestion.open_ids import OpenIds
from k2.ingestion.past import DELISTED_DELAY_S, page_while_listed, tell_unlisted
from k2.ingestion.ports import Rest
from k2.ingestion.repairs import ranges, repair_records
from k2.ingestion.shard import Shard
from k2.kafka.gap_records import encode_gap, encode_repaired
from k2.kafka.position import (
    BackfillRequest,
    SymbolPosition,
    position_after,
    position_after_backfill,
    position_after_repair,
    position_with_backfill,
    request_key,
)
from k2.kafka.transaction import Record
from k2.market import BadRow, Gap, GapClass, IdRange, Trade
from k2.observability import metrics
from k2.tape.healing import PAGE_ROWS

BUSY_DELAY_S = 1.0
ASK_AGAIN_AFTER_S = 5.0
"""Rows REST lacks are asked for twice before they are declared."""

_log = structlog.get_logger()


class Backfill:
    """Fills the past of one shard's symbols, for as long as this process writes it."""

    def __init__(
        self,
        shard: Shard,
        rest: Rest,
        *,
        reject_row: Callable[[BadRow], None],
        busy: Callable[[], bool],
        host: Host,
    ) -> None:
        """Join a shard with REST and the dead letters; ``busy`` lets healing go first."""
        self._shard = shard
        self._rest = rest
        self._reject_row = reject_row
        self._busy = busy
        self._host = host
        self._idle: set[str] = set()
        self._again_s: dict[str, float] = {}
        """When a delisted symbol is asked for again."""

    async def run(self) -> None:
        """Fill what is wanted, for ever."""
        while True:
            for request in self._shard.log.record.requests:
                await self._take_up(request)
            backfills = self._shard.told.position.backfills
            self._tell_idle(backfills.keys() - self._shard.tapes.keys())
            for symbol in (due := self._due(backfills)):
                try:
                    await self._fill_page(symbol, backfills[symbol])
                except UnknownSymbolError as exc:
                    tell_unlisted(symbol, exc)
                    self._again_s[symbol] = self._host.monotonic_s() + DELISTED_DELAY_S
            if not due and not self._shard.log.record.requests:
                await self._news(within_s=DELISTED_DELAY_S)

    def _due(self, symbols: Iterable[str]) -> list[str]:
        """Return those whose past can be asked for: one that left, or is delisted, waits."""
        now_s = self._host.monotonic_s()
        return [
            symbol
            for symbol in symbols
            if symbol in self._shard.tapes and self._again_s.get(symbol, now_s) <= now_s
        ]

    def _tell_idle(self, idle: set[str]) -> None:
        for symbol in sorted(idle - self._idle):
            _log.warning(
                "backfill_waits",
                symbol=symbol,
                why=f"the symbol is not recorded now: `k2 symbols add {symbol}`",
            )
        self._idle = idle

    async def _news(self, *, within_s: float) -> None:
        self._shard.news.clear()
        try:
            async with asyncio.timeout(within_s):
                await self._shard.news.wait()
        except TimeoutError:
            return

    async def _take_up(self, request: BackfillRequest) -> None:
        shard = self._shard

        def change(told: Told) -> Told | None:
            where = told.position.symbols.get(request.symbol)
            if where is not None and where.first_id is None and where.last_id is not None:
                _log.warning(
                    "backfill_refused",
                    symbol=request.symbol,
                    reason="where its tape begins is not recorded: `k2 positions rebuild "
                    "--from-topic`, then ask again",
                )
                return told
            if where is not None and request.from_id >= _first_id(where):
                return told  # it begins there already
            try:
                position = position_with_backfill(told.position, request.symbol, request.from_id)
            except RejectError as exc:
                _log.warning("backfill_refused", symbol=request.symbol, reason=str(exc))
                return told
            return told._replace(position=position)

        def records() -> Iterable[Record]:
            yield Record(shard.settings.names.positions, request_key(request.request_id), None)

        if await shard.do(records, change):
            _log.info("backfill_begins", symbol=request.symbol, from_id=request.from_id)
            await self._until_followed(request)

    async def _until_followed(self, request: BackfillRequest) -> None:
        """Wait until our own record of having taken it up has come back to us."""
        while request in self._shard.log.record.requests:
            self._shard.news.clear()
            await self._shard.news.wait()

    async def _fill_page(self, symbol: str, wanted: int) -> None:
        first_id = _first_id(self._shard.told.position.symbols[symbol])
        from_id = max(wanted, first_id - PAGE_ROWS)
        while self._busy() or self._shard.full:  # noqa: ASYNC110 - healing ends by itself
            await asyncio.sleep(BUSY_DELAY_S)
        rows = await self._rows(symbol, from_id, below_id=first_id)
        if len(rows) < first_id - from_id:
            await asyncio.sleep(ASK_AGAIN_AFTER_S)
            rows = await self._rows(symbol, from_id, below_id=first_id)
        if not rows or rows[0].source_id > from_id:
            begins_at = await self._exchange_begins_at(symbol, below_id=first_id)
            if begins_at > from_id:
                _log.warning(
                    "backfill_ends_early",
                    symbol=symbol,
                    from_id=wanted,
                    first_id=begins_at,
                    why="the exchange has nothing before",
                )
                await self._end_at(symbol, begins_at, first_id)
                return
        if await self._write(symbol, rows, IdRange(from_id, first_id - 1), first_id):
            metrics.backfilled.labels(symbol).inc(first_id - from_id)
            if from_id == wanted:
                _log.info("backfill_complete", symbol=symbol, first_id=from_id)

    async def _exchange_begins_at(self, symbol: str, *, below_id: int) -> int:
        """Return the first id there is at all; ``below_id`` when there is none below it.

        Ids before it never existed: nothing is missing there, so nothing is declared.
        """
        rows = await self._rows(symbol, 0, below_id=below_id)
        return rows[0].source_id if rows else below_id

    async def _end_at(self, symbol: str, begins_at: int, first_id: int) -> None:
        """Want no more than what the exchange has."""

        def change(told: Told) -> Told | None:
            if _first_id(told.position.symbols[symbol]) != first_id:
                return None
            others = {s: wish for s, wish in told.position.backfills.items() if s != symbol}
            mine = {symbol: begins_at} if begins_at < first_id else {}
            position = msgspec.structs.replace(told.position, backfills=others | mine)
            return told._replace(position=position)

        await self._shard.do(lambda: (), change)

    async def _rows(self, symbol: str, from_id: int, *, below_id: int) -> list[Trade | BadRow]:
        """Return what REST has of these ids: ascending, each once, whatever else it sends."""
        rows = await page_while_listed(self._rest, symbol, from_id=from_id, host=self._host)
        found = {row.source_id: row for row in rows if from_id <= row.source_id < below_id}
        return [found[source_id] for source_id in sorted(found)]

    async def _write(
        self, symbol: str, rows: list[Trade | BadRow], page: IdRange, first_id: int
    ) -> bool:
        shard = self._shard
        trades = [row for row in rows if isinstance(row, Trade)]
        bad_rows = [row for row in rows if isinstance(row, BadRow)]
        gaps = _gaps(symbol, page, trades, bad_rows)
        now_us = self._host.wall_ns() // 1000
        topic = shard.settings.names.gaps
        # Ids declared before the first trade was written lie below it: they are here now.
        open_ids, open_gaps = OpenIds(), shard.told.position.open_gaps
        repaired = [
            trade.source_id for trade in trades if open_ids.has(open_gaps, symbol, trade.source_id)
        ]

        def records() -> Iterable[Record]:
            yield from repair_records(shard, trades)
            for gap in gaps:
                yield Record(topic, symbol.encode(), encode_gap(gap, declared_ts_us=now_us))
            for ids in ranges(repaired):
                value = encode_repaired(symbol, ids, repaired_ts_us=now_us)
                yield Record(topic, symbol.encode(), value)

        def change(told: Told) -> Told | None:
            if _first_id(told.position.symbols[symbol]) != first_id:
                return None
            position = position_after_repair(told.position, symbol, repaired)
            position = position_after(position, gaps, declared_ts_us=now_us)
            position = position_after_backfill(position, symbol, first_id=page.first_id)
            return told._replace(position=position)

        landed = await shard.do(records, change)
        if landed:
            for row in bad_rows:
                self._reject_row(row)
        return landed


def _first_id(where: SymbolPosition) -> int:
    """Return where a tape begins; one that has not begun to be written begins at its end."""
    return where.first_id if where.first_id is not None else where.next_id


def _gaps(symbol: str, page: IdRange, trades: list[Trade], bad_rows: list[BadRow]) -> list[Gap]:
    """Return what of a page has no trade, as declared gaps."""
    bad = {row.source_id: row for row in bad_rows}
    have = {trade.source_id for trade in trades} | bad.keys()
    lacking = [i for i in range(page.first_id, page.last_id + 1) if i not in have]
    gaps = [Gap(symbol, ids, GapClass.MISSING, "REST lacks it") for ids in ranges(lacking)]
    for source_id, row in bad.items():
        gap_class = GapClass.VOID if row.error_type == "void" else GapClass.REJECTED
        gaps.append(Gap(symbol, IdRange(source_id, source_id), gap_class, row.error))
    return gaps
