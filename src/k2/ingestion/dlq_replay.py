"""``k2 dlq replay``: judge the letters, and ask the shards' writers for what can be read now.

Asked, per shard, are its position (where each tape begins and ends, which ids are looked for) and
after it the gap records (what was declared, what was repaired). An id of a tape is missing where
either says so and no repair does; every other is taken to be recorded. The topics of trades and the
lake are not asked: after ``k2 positions rebuild --from-lake``, ids of the lost Kafka that were
declared and are not looked for (void rows) count as recorded.

Nothing here writes a trade, and nobody is fenced. The wish is a record of its own in
``.positions``; whoever writes the shard takes it up, now or later (``dlq_replays``).
"""

import time
import uuid
from collections.abc import Iterable
from itertools import islice
from typing import NamedTuple

import msgspec

from k2.errors import RetryError
from k2.ingestion.admission import recorded_symbols
from k2.ingestion.dlq_judging import Outcome, SymbolTape, Tapes, Verdict, judge
from k2.ingestion.dlq_replays import declared_ranges, repaired_ranges
from k2.ingestion.positions_look import Room, find_room
from k2.kafka.clients import LIBRARY, Clients
from k2.kafka.gap_records import GapRecord
from k2.kafka.letter_reading import Letter
from k2.kafka.partitioning import shard_of
from k2.kafka.position import ShardRecord
from k2.kafka.replay_request import TRADES_MAX, ReplayRequest, encode_replay, replay_key
from k2.kafka.request_writer import write_request
from k2.kafka.shard_reader import EndAsker
from k2.kafka.tape_reader import TapeReader
from k2.market import StreamKind, Trade
from k2.settings import Settings

ANSWERED_WITHIN_S = 30.0
LOOK_EVERY_S = 0.25

_Key = tuple[str, int]
"""Symbol and id."""


def judge_letters(settings: Settings, letters: Iterable[Letter]) -> list[Verdict]:
    """Return what each letter is today, in their order; writes nothing.

    Raises:
        RetryError: If Kafka cannot be read, or nothing was ever recorded there.
    """
    tapes = _tapes(find_room(settings))
    return [judge(letter, tapes) for letter in letters]


def replay(
    settings: Settings,
    letters: Iterable[Letter],
    *,
    answered_within_s: float = ANSWERED_WITHIN_S,
    clients: Clients = LIBRARY,
) -> list[Verdict]:
    """Ask for what can be read now; return what has become of each letter, in their order.

    Replaying twice, or while writers come and go, does no harm: the writer looks whether an id is
    still declared before it writes it.

    Raises:
        RetryError: If Kafka cannot be read, or nothing was ever recorded there.
        ReconcileError: If nobody knows whether a wish was written.
    """
    room = find_room(settings)
    tapes = _tapes(room)
    verdicts = [judge(letter, tapes) for letter in letters]
    trades: dict[tuple[str, int], Trade] = {}
    for one in verdicts:
        if one.trade is not None:  # two legs brought it: the first letter's words count
            trades.setdefault((one.trade.symbol, one.trade.source_id), one.trade)
    if not trades:
        return verdicts
    shards = {
        symbol: shard_of(symbol, partitions=room.partitions) for symbol in {s for s, _ in trades}
    }
    pending = {
        (request.symbol, trade.source_id)
        for shard in set(shards.values())
        for request in room.record(shard).replays
        for trade in request.trades
    }
    written = dict.fromkeys(shards.values(), -1)
    for request in requests_for(trade for key, trade in trades.items() if key not in pending):
        shard = shards[request.symbol]
        written[shard] = write_request(
            room.kafka,
            positions_topic=room.names.positions,
            shard=shard,
            key=replay_key(request.request_id),
            value=encode_replay(request),
            clients=clients,
        )
    wishes = [
        _Wishes(shard, {key for key in trades if shards[key[0]] == shard}, offset)
        for shard, offset in written.items()
    ]
    asked = _until_answered(room, wishes, answered_within_s, clients=clients)
    repaired = {shard: repaired_ranges(_gap_records(room, shard)) for shard in written}

    def fate(one: Verdict) -> Verdict:
        if one.trade is None:
            return one
        symbol, source_id = one.trade.symbol, one.trade.source_id
        if any(source_id in ids for ids in repaired[shards[symbol]].get(symbol, ())):
            outcome, reason = Outcome.REPAIRED, ""
        elif (symbol, source_id) in asked:
            outcome, reason = Outcome.ASKED, "no `k2 stream` has taken it up yet"
        else:
            outcome, reason = (
                Outcome.DECLINED,
                (
                    "it stays declared: REST's row is void or bad, or too much is looked for "
                    "already (then run it again)"
                ),
            )
        return msgspec.structs.replace(one, outcome=outcome, reason=reason)

    return [fate(one) for one in verdicts]


def requests_for(trades: Iterable[Trade]) -> list[ReplayRequest]:
    """Return the wishes for these trades: of one symbol each, and none too long."""
    by_symbol: dict[str, list[Trade]] = {}
    for trade in sorted(trades, key=lambda one: (one.symbol, one.source_id)):
        by_symbol.setdefault(trade.symbol, []).append(trade)
    found = []
    for symbol, mine in by_symbol.items():
        left = iter(mine)
        while part := tuple(islice(left, TRADES_MAX)):
            request_id = f"{symbol}-{part[0].source_id}-{uuid.uuid4().hex[:8]}"
            found.append(ReplayRequest(symbol, part, request_id))
    return found


class _Wishes(NamedTuple):
    """What was asked of one shard's writer."""

    shard: int
    keys: set[_Key]
    offset: int
    """Of the last wish written, -1 for none: committed readers may not get as far yet."""

    def left(self, room: Room, ends: EndAsker) -> set[_Key]:
        """Return what is still asked for."""
        # A transaction that was open hides what was written after it.
        if ends.last_stable_offset(room.names.positions, self.shard) <= self.offset:
            return self.keys
        return self.keys & {
            (request.symbol, trade.source_id)
            for request in room.record(self.shard).replays
            for trade in request.trades
        }


def _until_answered(
    room: Room, wishes: Iterable[_Wishes], within_s: float, *, clients: Clients
) -> set[_Key]:
    """Wait until the writers have answered; return what is still asked for."""
    deadline_s = time.monotonic() + within_s
    ends = EndAsker(room.kafka, clients=clients)
    try:
        while True:
            asked = {key for one in wishes for key in one.left(room, ends)}
            if not asked or time.monotonic() >= deadline_s:
                return asked
            time.sleep(LOOK_EVERY_S)
    finally:
        ends.close()


def _tapes(room: Room) -> Tapes:
    records = [room.record(shard) for shard in range(room.partitions)]
    kinds = {one.identity.stream_kind for one in records if one.identity is not None}
    if len(kinds) != 1:
        raise RetryError(f"nothing was recorded in {room.names.trades} yet")
    symbols: dict[str, SymbolTape] = {}
    for shard, record in enumerate(records):  # the gaps after the position that they belong to
        symbols |= _symbol_tapes(record, room, shard)
    return Tapes(room.names.trades, StreamKind(kinds.pop()), symbols, recorded_symbols(records))


def _symbol_tapes(record: ShardRecord, room: Room, shard: int) -> dict[str, SymbolTape]:
    if record.position is None:
        return {}
    missing = declared_ranges(_gap_records(room, shard), record.position.open_gaps)
    return {
        symbol: SymbolTape(
            where.next_id if where.first_id is None else where.first_id,
            where.next_id,
            missing.get(symbol, ()),
        )
        for symbol, where in record.position.symbols.items()
    }


def _gap_records(room: Room, shard: int) -> list[GapRecord]:
    reader = TapeReader(room.kafka, shard=shard, isolation="read_committed")
    return reader.gap_records(room.names.gaps)
