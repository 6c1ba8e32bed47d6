"""``k2 symbols list``: what a file wants beside what Kafka says is recorded."""

import msgspec

from k2.ingestion.positions_look import Room
from k2.market.wanted import Wanted


class SymbolLine(msgspec.Struct, frozen=True):
    """One symbol."""

    symbol: str
    recorded: bool | None
    """Whether it is in the active set; None when Kafka does not say."""
    wanted: bool
    shard: int | None
    next_id: int | None
    """Where its tape stands, if it has one."""
    note: str
    """Why it is not recorded, or still is."""


def symbol_lines(wanted: Wanted, room: Room | None) -> list[SymbolLine]:
    """Return every symbol that is wanted, recorded or has a tape, by name."""
    lines: dict[str, SymbolLine] = {}
    for shard in range(room.partitions) if room is not None else ():
        record = room.record(shard) if room is not None else None
        identity = record.identity if record is not None else None
        position = record.position if record is not None else None
        active = set(identity.symbols) if identity is not None else set()
        tapes = position.symbols if position is not None else {}
        for name in active | tapes.keys():
            lines[name] = SymbolLine(
                symbol=name,
                recorded=name in active,
                wanted=name in wanted.names,
                shard=shard,
                next_id=tapes[name].next_id if name in tapes else None,
                note=_note(wanted=name in wanted.names, active=name in active),
            )
    for name in wanted.names - lines.keys():
        recorded = None if room is None else False
        note = "" if room is None else _note(wanted=True, active=False)
        lines[name] = SymbolLine(name, recorded, wanted=True, shard=None, next_id=None, note=note)
    return [lines[name] for name in sorted(lines)]


def _note(*, wanted: bool, active: bool) -> str:
    return "no `k2 stream` has taken it up" if wanted and not active else ""
