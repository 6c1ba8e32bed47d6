"""``k2 backfill``: ask the shard's writer for a symbol's past, and watch it come.

The wish is a record of its own in ``.positions``; whoever writes the shard takes it up, now or
later. Nothing here writes a trade, and nobody is fenced.
"""

import asyncio
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from enum import Enum

import msgspec

from k2.binance.rest import UnknownSymbolError
from k2.errors import RejectError, RetryError
from k2.ingestion.positions_look import find_room
from k2.ingestion.venue import rest_of
from k2.kafka.clients import LIBRARY, Clients
from k2.kafka.partitioning import shard_of
from k2.kafka.position import BackfillRequest, ShardRecord, encode_request, request_key
from k2.kafka.request_writer import write_request
from k2.kafka.shard_reader import ShardFollower
from k2.market import StreamKind
from k2.market.epoch import epoch_us
from k2.settings import Settings

EXCHANGE_MAX_S = 5.0


class Stage(Enum):
    """How far a backfill has come."""

    NOTHING_TO_DO = "nothing_to_do"
    """The tape begins there, or further back."""
    REQUESTED = "requested"
    """No writer has taken it up yet."""
    RUNNING = "running"
    DONE = "done"
    REFUSED = "refused"
    """The writer did not take it up; its log says why."""


class Progress(msgspec.Struct, frozen=True):
    """What has become of one wish. Ids are counted from where the tape began when it was made."""

    symbol: str
    from_id: int
    stage: Stage
    first_id: int
    """Where the tape begins now."""
    ids_done: int
    ids_wanted: int
    request_id: str | None


class Order(msgspec.Struct, frozen=True):
    """A wish that is in Kafka."""

    request: BackfillRequest
    shard: int
    offset: int
    """Of its record: whoever has read beyond it has seen the wish."""
    began_at: int
    """First id of the tape when it was made."""
    asked_for: int
    """The id that was asked for; below the request's where the exchange has nothing before."""

    def progress(self, record: ShardRecord) -> Progress:
        """Return what a shard's record, read beyond our own, says of it."""
        symbol, from_id = self.request.symbol, self.request.from_id
        first_id = _first_id(record, symbol)
        if first_id <= from_id:
            stage = Stage.DONE
        elif any(one.request_id == self.request.request_id for one in record.requests):
            stage = Stage.REQUESTED
        elif record.position is not None and symbol in record.position.backfills:
            stage = Stage.RUNNING
        elif first_id < self.began_at:
            stage = Stage.DONE  # as far down as the exchange has anything
        else:
            stage = Stage.REFUSED
        return Progress(
            symbol=symbol,
            from_id=from_id,
            stage=stage,
            first_id=first_id,
            ids_done=max(0, min(self.began_at - first_id, self.began_at - from_id)),
            ids_wanted=self.began_at - from_id,
            request_id=self.request.request_id,
        )


def order_backfill(
    settings: Settings, *, symbol: str, from_id: int, clients: Clients = LIBRARY
) -> Order | Progress:
    """Ask for a symbol's tape to begin at ``from_id``; a ``Progress`` if it does already.

    Where the exchange has nothing as early as that, the tape is to begin at its first id.

    Raises:
        RejectError: If there is no tape of the symbol, or it ends before that id; if the symbol is
            not recorded now, or not listed any more.
        RetryError: If Kafka cannot be reached: nothing was asked for.
        ReconcileError: If nobody knows whether the wish was written; asking again does no harm.
    """
    room = find_room(settings)
    shard = shard_of(symbol, partitions=room.partitions)
    record = room.record(shard)
    if record.position is None or symbol not in record.position.symbols:
        tapes = sorted(
            name
            for number in range(room.partitions)
            if (position := room.record(number).position) is not None
            for name in position.symbols
        )
        raise RejectError(
            f"{room.names.trades} has no tape of {symbol} that could begin earlier, it has "
            f"{' '.join(tapes) or 'none at all'}: record the symbol first (`k2 symbols add "
            f"{symbol}` beside a running `k2 up` or `k2 stream`)"
        )
    if record.identity is not None and symbol not in record.identity.symbols:
        raise RejectError(
            f"{symbol} is not recorded now, so nobody fetches its past: record it again first "
            f"(`k2 symbols add {symbol}` beside a running `k2 up` or `k2 stream`)"
        )
    began_at, next_id = _first_id(record, symbol), record.position.symbols[symbol].next_id
    if from_id >= next_id > 0:
        raise RejectError(
            f"{symbol}: id {from_id} is beyond the end of its tape, which holds ids {began_at} to "
            f"{next_id - 1}; a backfill goes back in time"
        )
    begins_at = from_id
    if from_id < began_at and (exchange_first_id := _exchange_first_id(settings, record, symbol)):
        begins_at = max(from_id, exchange_first_id)
    if begins_at >= began_at:
        return Progress(symbol, from_id, Stage.NOTHING_TO_DO, began_at, 0, 0, None)
    request = BackfillRequest(symbol, begins_at, f"{symbol}-{begins_at}-{uuid.uuid4().hex[:8]}")
    offset = write_request(
        room.kafka,
        positions_topic=room.names.positions,
        shard=shard,
        key=request_key(request.request_id),
        value=encode_request(request),
        clients=clients,
    )
    return Order(request, shard, offset, began_at, asked_for=from_id)


def watch(settings: Settings, order: Order, *, clients: Clients = LIBRARY) -> Iterator[Progress]:
    """Yield what becomes of a wish until it is over; nothing about it depends on being watched.

    Raises:
        RetryError: If Kafka cannot be read.
    """
    room = find_room(settings)
    follower = ShardFollower(
        room.kafka, positions_topic=room.names.positions, shard=order.shard, clients=clients
    )
    try:
        while True:
            follower.follow()
            if follower.next_offset <= order.offset:
                continue
            now = order.progress(follower.record)
            if now.stage is Stage.REFUSED and follower.follow():
                continue  # the position that names the backfill is only a record further on
            yield now
            if now.stage in (Stage.DONE, Stage.REFUSED):
                return
    finally:
        follower.close()


def id_since(settings: Settings, symbol: str, when: datetime) -> int:
    """Return the first id traded at or after ``when``, of the kind that the tape holds.

    Raises:
        RejectError: If nothing has been traded since, or the venue asked here cannot tell.
        RetryError: If Kafka or REST cannot be asked.
    """
    room = find_room(settings)
    identity = room.record(shard_of(symbol, partitions=room.partitions)).identity
    if identity is None:
        raise RejectError(f"{room.names.trades} has no tape of {symbol}: record it first")
    if identity.stream_kind != StreamKind.AGG_TRADE.value:
        raise RejectError(
            "--since: this is a tape of single fills, which the exchange finds by id only "
            "(historicalTrades has no startTime): name the id with --from-id"
        )
    if identity.environment != settings.environment:
        raise RejectError(
            f"--since: the tape's ids are those of {identity.environment}, the exchange named here "
            f"is {settings.environment}: set BINANCE_WS_URL and BINANCE_REST_URL as for "
            "`k2 stream`, or name the id with --from-id"
        )
    return asyncio.run(_id_at(settings, symbol, when))


def _exchange_first_id(settings: Settings, record: ShardRecord, symbol: str) -> int | None:
    """Return the first id the exchange has of a symbol; None when it does not say.

    The writer, which knows the same, decides; this is for telling the operator at once.

    Raises:
        RejectError: If the exchange does not list the symbol.
    """
    identity = record.identity
    if identity is None or identity.environment != settings.environment:
        return None
    try:
        return asyncio.run(_first_at(settings, StreamKind(identity.stream_kind), symbol))
    except UnknownSymbolError as exc:
        raise RejectError(
            f"the exchange lists {symbol} no more: nobody has its past to give ({exc})"
        ) from exc
    except (RetryError, TimeoutError):
        return None


async def _first_at(settings: Settings, kind: StreamKind, symbol: str) -> int | None:
    async with asyncio.timeout(EXCHANGE_MAX_S), rest_of(settings, kind=kind) as rest:
        rows = await rest.rows_from(symbol, from_id=0)
    return rows[0].source_id if rows else None


async def _id_at(settings: Settings, symbol: str, when: datetime) -> int:
    async with rest_of(settings, kind=StreamKind.AGG_TRADE) as rest:
        found = await rest.id_at(symbol, epoch_us(when))
    if found is None:
        raise RejectError(f"{symbol}: the exchange has no trade since {when.isoformat()}")
    return found


def moment(text: str) -> datetime:
    """Return the moment an ISO date or time names; without a zone it is UTC.

    Raises:
        ValueError: If it is none.
    """
    found = datetime.fromisoformat(text)
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found


def _first_id(record: ShardRecord, symbol: str) -> int:
    if record.position is None or symbol not in record.position.symbols:
        raise RetryError(f"the position of {symbol} is gone: look with `k2 positions show`")
    where = record.position.symbols[symbol]
    return where.next_id if where.first_id is None else where.first_id
