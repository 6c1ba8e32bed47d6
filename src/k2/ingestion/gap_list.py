"""``k2 gaps``: every declared gap, and what has become of its ids."""

from collections.abc import Collection, Sequence
from enum import Enum

import msgspec

from k2.ingestion.known_symbols import require_known
from k2.ingestion.positions_look import find_room
from k2.kafka.gap_records import GapEvent, GapRecord
from k2.kafka.position import OpenGap
from k2.kafka.tape_reader import TapeReader
from k2.market import GapClass, IdRange
from k2.settings import Settings
from k2.tape.ranges import without


class GapState(Enum):
    """What has become of declared ids."""

    OPEN = "open"
    """The writer goes on looking for them."""
    REPAIRED = "repaired"
    """They came late: the repairs topic has them, and so has the lake."""
    CLOSED = "closed"
    """They stay declared: the exchange voided them, they cannot be represented, or they are too
    many to look for."""


class GapLine(msgspec.Struct, frozen=True):
    """Ids of one declared gap that have fared alike. Times are our clock's, us since the epoch."""

    symbol: str
    first_id: int
    last_id: int
    ids: int
    gap_class: GapClass
    reason: str
    declared_ts_us: int
    state: GapState
    repaired_ts_us: int | None


class GapList(msgspec.Struct, frozen=True):
    """The declared gaps of a tape, by symbol and id."""

    gaps: list[GapLine]
    open_ids: int


def list_gaps(settings: Settings, *, symbols: Collection[str]) -> GapList:
    """Return the declared gaps of these symbols (of all, if none is named); fences nobody.

    Raises:
        RejectError: If nothing was ever recorded of one of these.
        RetryError: If Kafka cannot be reached or the topics do not exist.
    """
    room = find_room(settings)
    require_known(room, symbols)
    lines: list[GapLine] = []
    for shard in range(room.partitions):
        reader = TapeReader(room.kafka, shard=shard, isolation="read_committed")
        # The position knows everything declared before it was read; what was repaired before it was
        # read is in the gaps read after it.
        declared = reader.gap_records(room.names.gaps)
        position = room.record(shard).position
        repairs = reader.gap_records(room.names.gaps)
        open_gaps = position.open_gaps if position is not None else ()
        lines += gap_lines(declared, repairs=repairs, open_gaps=open_gaps)
    wanted = [one for one in lines if not symbols or one.symbol in symbols]
    wanted.sort(key=lambda one: (one.symbol, one.first_id))
    return GapList(wanted, sum(one.ids for one in wanted if one.state is GapState.OPEN))


def gap_lines(
    declared: Sequence[GapRecord], *, repairs: Sequence[GapRecord], open_gaps: Sequence[OpenGap]
) -> list[GapLine]:
    """Return each declared gap, cut where its ids have fared differently.

    Args:
        declared: Gap records, of which the declarations count.
        repairs: Gap records, of which the repairs count; read last.
        open_gaps: What the position says is still looked for. A position that was rebuilt from the
            lake names gaps of which no record is left.
    """
    lines = []
    for gap in declared:
        if gap.event is not GapEvent.DECLARED:
            continue
        rest = [gap.ids]
        for repair in repairs:
            if repair.event is GapEvent.REPAIRED and repair.symbol == gap.symbol:
                still = without(rest, [repair.ids])
                lines += [
                    _line(gap, ids, GapState.REPAIRED, repair.repaired_ts_us)
                    for ids in without(rest, still)
                ]
                rest = still
        looked_for = sorted(one.ids for one in open_gaps if one.symbol == gap.symbol)
        closed = without(rest, looked_for)
        lines += [_line(gap, ids, GapState.OPEN, None) for ids in without(rest, closed)]
        lines += [_line(gap, ids, GapState.CLOSED, None) for ids in closed]
    return lines + _without_record(open_gaps, [*declared, *repairs])


def _without_record(open_gaps: Sequence[OpenGap], records: Sequence[GapRecord]) -> list[GapLine]:
    """Return what is looked for though no record declares it: the lake knew, Kafka was lost."""
    told: dict[str, list[IdRange]] = {}
    for record in sorted(records, key=lambda one: one.ids):
        told.setdefault(record.symbol, []).append(record.ids)
    return [
        GapLine(
            symbol=gap.symbol,
            first_id=ids.first_id,
            last_id=ids.last_id,
            ids=len(ids),
            gap_class=GapClass.MISSING,
            reason="its record went with the Kafka that was lost",
            declared_ts_us=gap.declared_ts_us,
            state=GapState.OPEN,
            repaired_ts_us=None,
        )
        for gap in open_gaps
        for ids in without([gap.ids], told.get(gap.symbol, []))
    ]


def _line(gap: GapRecord, ids: IdRange, state: GapState, repaired_ts_us: int | None) -> GapLine:
    return GapLine(
        symbol=gap.symbol,
        first_id=ids.first_id,
        last_id=ids.last_id,
        ids=len(ids),
        gap_class=gap.gap_class,
        reason=gap.reason,
        declared_ts_us=gap.declared_ts_us,
        state=state,
        repaired_ts_us=repaired_ts_us,
    )
