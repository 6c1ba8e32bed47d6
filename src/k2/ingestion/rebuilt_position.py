"""PURE: where a shard's tape stands, worked out again from what its topics or the lake hold."""

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from k2.kafka.gap_records import GapEvent, GapRecord
from k2.kafka.position import OPEN_GAPS_MAX, OpenGap, ShardPosition, SymbolPosition
from k2.market import GapClass, IdRange
from k2.tape.coverage import Coverage
from k2.tape.ranges import without


def position_from(
    tape: Coverage,
    *,
    repairs: Coverage,
    gaps: Sequence[GapRecord],
    known: Mapping[str, SymbolPosition],
    backfills: Mapping[str, int],
    last_ts_us: Mapping[str, int],
) -> ShardPosition:
    """Return the position of tapes that hold these ids.

    Args:
        tape: Ids of the trades topic, or of the lake.
        repairs: Ids that came late, or from the past; never the end of a tape.
        gaps: Declarations and repairs, in the order they were written.
        known: What is known besides: where tapes without trades in ``tape`` end, and where the
            others begin.
        backfills: Those that were running; one that has reached its id is left out.
        last_ts_us: Trade time of the last id of each symbol in ``tape``.
    """
    symbols = dict(known)
    for symbol in tape.symbols():
        last_id = tape.ranges(symbol)[-1].last_id
        symbols[symbol] = SymbolPosition(last_id + 1, last_id, last_ts_us=last_ts_us.get(symbol))
    declared = [gap for gap in gaps if gap.event is GapEvent.DECLARED]
    for gap in sorted(declared, key=lambda one: one.ids):
        symbols[gap.symbol] = _past(gap.ids, symbols.get(gap.symbol))
    for symbol, was in symbols.items():
        begun = known[symbol].first_id if symbol in known else None
        of_symbol = [gap.ids for gap in declared if gap.symbol == symbol]
        first_id = _first_id(symbol, begun, (tape, repairs), of_symbol)
        symbols[symbol] = msgspec.structs.replace(was, first_id=first_id)
    return ShardPosition(
        symbols,
        _open(symbols, declared, _repaired(gaps, (tape, repairs))),
        {
            symbol: wanted
            for symbol, wanted in backfills.items()
            if symbol in symbols and not _reached(symbols[symbol], wanted)
        },
    )


def _past(ids: IdRange, was: SymbolPosition | None) -> SymbolPosition:
    """Return where a tape ends once a gap is declared: only one that it has come to moves it."""
    if was is None:
        return SymbolPosition(ids.last_id + 1, None)
    if ids.first_id <= was.next_id <= ids.last_id:
        return msgspec.structs.replace(was, next_id=ids.last_id + 1)
    return was


def _first_id(
    symbol: str, begun: int | None, held: Iterable[Coverage], declared: Iterable[IdRange]
) -> int | None:
    """Return the first id of a tape; declared gaps below its first trade belong to it."""
    candidates = [ids.ranges(symbol)[0].first_id for ids in held if ids.ranges(symbol)]
    if begun is not None:
        candidates.append(begun)
    if not candidates:
        return None
    first_id = min(candidates)
    for ids in sorted(declared, reverse=True):
        if ids.first_id < first_id <= ids.last_id + 1:
            first_id = ids.first_id
    return first_id


def _repaired(gaps: Iterable[GapRecord], held: Iterable[Coverage]) -> dict[str, list[IdRange]]:
    found: dict[str, list[IdRange]] = {}
    for gap in gaps:
        if gap.event is GapEvent.REPAIRED:
            found.setdefault(gap.symbol, []).append(gap.ids)
    for coverage in held:
        for symbol in coverage.symbols():
            found.setdefault(symbol, []).extend(coverage.ranges(symbol))
    return {symbol: sorted(ranges) for symbol, ranges in found.items()}


def _open(
    symbols: Mapping[str, SymbolPosition],
    declared: Iterable[GapRecord],
    repaired: Mapping[str, list[IdRange]],
) -> tuple[OpenGap, ...]:
    """Return the gaps to look for; one beyond the end of the tape is met again on the way."""
    left = [
        OpenGap(gap.symbol, ids, gap.declared_ts_us)
        for gap in declared
        if gap.gap_class is GapClass.MISSING and gap.ids.first_id < symbols[gap.symbol].next_id
        for ids in without([gap.ids], repaired.get(gap.symbol, []))
    ]
    return tuple(left[-OPEN_GAPS_MAX:])


def _reached(where: SymbolPosition, wanted: int) -> bool:
    return where.first_id is not None and where.first_id <= wanted
