"""The writer's side of ``k2 dlq replay``: letters that can be read now, brought onto the tape once.

What was declared and is not looked for any more (a row nobody could read) is looked for again
first: the position names it, in a transaction of its own. From then on it is an open gap like any
other, and the one mechanism that closes those says by the position whether it still has to. So
nothing is written twice, whatever becomes of a commit, of this process, or of the order.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence

import msgspec
import structlog

from k2.binance.rest import UnknownSymbolError
from k2.errors import RetryError
from k2.ingestion.commits import Told
from k2.ingestion.dlq_judging import not_recorded
from k2.ingestion.host import Host
from k2.ingestion.open_ids import OpenIds
from k2.ingestion.ports import Rest
from k2.ingestion.repairs import Repairs, ranges
from k2.ingestion.shard import Shard
from k2.kafka.gap_records import GapEvent, GapRecord
from k2.kafka.position import OPEN_GAPS_MAX, OpenGap
from k2.kafka.replay_request import ReplayRequest, replay_key
from k2.kafka.transaction import Record
from k2.market import BadRow, IdRange, Trade
from k2.tape.ranges import without

RETRY_DELAY_S = 1.0
ASK_AGAIN_AFTER_S = 5.0
"""Rows REST lacks are asked for twice before a letter's own words are taken."""

_log = structlog.get_logger()


class Replays:
    """Takes up the replay requests of one shard, for as long as this process writes it."""

    def __init__(self, shard: Shard, rest: Rest, *, repairs: Repairs, host: Host) -> None:
        """Join a shard with REST and with what writes late trades."""
        self._shard = shard
        self._rest = rest
        self._repairs = repairs
        self._host = host
        self._idle: set[str] = set()
        self._open_ids = OpenIds()

    async def run(self) -> None:
        """Take up what is asked for, for ever."""
        while True:
            ready = self._ready()
            for request in ready:
                await self._take_up(request)
            if not ready:
                self._shard.news.clear()
                await self._shard.news.wait()

    def _ready(self) -> list[ReplayRequest]:
        """Return what can be taken up now; the wish of a symbol that left waits for its return."""
        replays = self._shard.log.record.replays
        idle = {request.symbol for request in replays} - self._shard.tapes.keys()
        for symbol in sorted(idle - self._idle):
            _log.warning("replay_waits", symbol=symbol, reason=not_recorded(symbol))
        self._idle = idle
        return [request for request in replays if request.symbol not in idle]

    async def _take_up(self, request: ReplayRequest) -> None:
        await self._look_again(request)
        letters = {t.source_id: t for t in request.trades if self._is_open(request.symbol, t)}
        if letters:
            rows = await self._rows(request.symbol, letters)
            found = letters | rows  # REST has the last word
            trades = [row for _, row in sorted(found.items()) if isinstance(row, Trade)]
            bad_rows = [row for row in found.values() if isinstance(row, BadRow)]
            await self._repairs.write(request.symbol, trades, [row.source_id for row in bad_rows])
            _log.info(
                "replay_done",
                symbol=request.symbol,
                asked=len(request.trades),
                from_rest=sum(isinstance(row, Trade) for row in rows.values()),
                from_letters=len(letters) - len(rows),
                given_up=len(bad_rows),
            )
        await self._delete(request)

    async def _look_again(self, request: ReplayRequest) -> None:
        """Have the position name what of the request was declared and is not looked for."""
        # Asked before the records are read: what is open by then is somebody else's to close, and
        # may be closed while they are read. What is closed only this duty opens again.
        closed = [t.source_id for t in request.trades if not self._is_open(request.symbol, t)]
        if not closed:
            return
        reopened = still_declared(request.symbol, closed, await self._gap_records())
        room = OPEN_GAPS_MAX - len(self._shard.told.position.open_gaps)
        if len(reopened) > room:
            _log.warning("replay_cut", symbol=request.symbol, why="too many gaps are looked for")
            reopened = reopened[:room]
        if not reopened:
            return
        now_us = self._host.wall_ns() // 1000

        def change(told: Told) -> Told | None:
            again = tuple(OpenGap(request.symbol, ids, now_us) for ids in reopened)
            open_gaps = (*told.position.open_gaps, *again)
            position = msgspec.structs.replace(told.position, open_gaps=open_gaps)
            return told._replace(position=position)

        await self._shard.do(tuple, change)

    async def _gap_records(self) -> list[GapRecord]:
        while True:
            try:
                return await self._shard.log.gap_records()
            except RetryError as exc:
                _log.info("replay_waits", reason=str(exc))
                await asyncio.sleep(RETRY_DELAY_S)

    async def _rows(self, symbol: str, wanted: Iterable[int]) -> dict[int, Trade | BadRow]:
        """Return what REST has of these ids; it is asked again for what it lacks."""
        wanted = set(wanted)
        found = await self._ask(symbol, wanted)
        if lacking := wanted - found.keys():
            await asyncio.sleep(ASK_AGAIN_AFTER_S)
            found |= await self._ask(symbol, lacking)
        return found

    async def _ask(self, symbol: str, wanted: Iterable[int]) -> dict[int, Trade | BadRow]:
        found: dict[int, Trade | BadRow] = {}
        left = sorted(wanted)
        while left:
            try:
                rows = await self._rest.rows_from(symbol, from_id=left[0])
            except UnknownSymbolError as exc:  # delisted since: REST lacks it all
                _log.info("replay_without_rest", symbol=symbol, reason=str(exc))
                return found
            except RetryError as exc:
                _log.info("replay_waits", symbol=symbol, reason=str(exc))
                await asyncio.sleep(RETRY_DELAY_S)
                continue
            page = {row.source_id: row for row in rows}
            found |= {source_id: page[source_id] for source_id in left if source_id in page}
            asked_to = max([left[0], *page])
            left = [source_id for source_id in left if source_id > asked_to]
        return found

    async def _delete(self, request: ReplayRequest) -> None:
        """Delete the order; wait until that has come back to us."""
        positions = self._shard.settings.names.positions

        def records() -> Iterable[Record]:
            yield Record(positions, replay_key(request.request_id), None)

        await self._shard.do(records, lambda told: told)
        while request in self._shard.log.record.replays:
            self._shard.news.clear()
            await self._shard.news.wait()

    def _is_open(self, symbol: str, trade: Trade) -> bool:
        open_gaps = self._shard.told.position.open_gaps
        return self._open_ids.has(open_gaps, symbol, trade.source_id)


def still_declared(
    symbol: str, source_ids: Sequence[int], records: Sequence[GapRecord]
) -> list[IdRange]:
    """Return what of these ids, ascending, was declared and not repaired since."""
    left = declared_ranges(records).get(symbol, [])
    return ranges([i for i in source_ids if any(i in ids for ids in left)])


def declared_ranges(
    records: Sequence[GapRecord], open_gaps: Iterable[OpenGap] = ()
) -> Mapping[str, list[IdRange]]:
    """Return, by symbol, what is missing from the tape, ascending by first id.

    That is what was declared or is looked for, and was not repaired since. The position is asked
    beside the records because one that was rebuilt from the lake looks for gaps whose records went
    with the Kafka that was lost.

    Args:
        records: Of gaps; read after the position, or what was repaired meanwhile counts as missing.
        open_gaps: What the position says is looked for.
    """
    missing = _by_symbol(records, GapEvent.DECLARED)
    for gap in open_gaps:
        missing.setdefault(gap.symbol, []).append(gap.ids)
    repaired = repaired_ranges(records)
    return {
        symbol: without(sorted(ids), sorted(repaired.get(symbol, [])))
        for symbol, ids in missing.items()
    }


def repaired_ranges(records: Iterable[GapRecord]) -> Mapping[str, list[IdRange]]:
    """Return, by symbol, what came late and is on the tape now."""
    return _by_symbol(records, GapEvent.REPAIRED)


def _by_symbol(records: Iterable[GapRecord], event: GapEvent) -> dict[str, list[IdRange]]:
    found: dict[str, list[IdRange]] = {}
    for one in records:
        if one.event is event:
            found.setdefault(one.symbol, []).append(one.ids)
    return found
