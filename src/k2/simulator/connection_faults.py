"""The stream faults in force on one connection: rows in, what is really sent out.

PURE: times are seconds of a steady clock, given by the caller.
"""

import math
from collections import Counter
from collections.abc import Iterable

import msgspec

from k2.simulator.rows import TapeRow
from k2.simulator.stream_faults import (
    AbsurdId,
    ConnectionFault,
    CountedFault,
    Duplicate,
    EventFault,
    ExtraField,
    HalfOpen,
    LastingFault,
    MutePings,
    Reorder,
    Silent,
    Skip,
    Stall,
)

EXTRA_JSON = ',"Y":{"new":[1,"two",null]}'


class Event(msgspec.Struct, frozen=True, gc=False):
    """A row to be sent, with fields to write behind its own (JSON text from a comma on)."""

    row: TapeRow
    extra_json: str = ""


class _InForce(msgspec.Struct):
    number: int
    fault: ConnectionFault
    left: int | None
    until_s: float
    held: list[Event] = []


class ConnectionFaults:
    """Plays the faults ordered for one connection, in the order they came.

    What strikes is counted in ``counts`` as ``fault <name>``.
    """

    def __init__(self, counts: Counter[str]) -> None:
        self._in_force: list[_InForce] = []
        self._counts = counts

    def order(self, number: int, fault: ConnectionFault, *, now_s: float) -> None:
        """Put a fault in force. ``number`` is what it can be cancelled by."""
        left = fault.count if isinstance(fault, CountedFault) else None
        until_s = math.inf
        if isinstance(fault, LastingFault):
            self._counts[f"fault {fault.name}"] += not isinstance(fault, Silent)
            until_s = math.inf if fault.duration_s is None else now_s + fault.duration_s
        self._in_force.append(_InForce(number, fault, left, until_s))

    def cancel(self, number: int | None) -> list[Event]:
        """Forget one fault, or all; returns the events it was holding back."""
        ended = [active for active in self._in_force if number in {None, active.number}]
        self._in_force = [
            active for active in self._in_force if number not in {None, active.number}
        ]
        return [event for active in ended for event in reversed(active.held)]

    def expire(self, now_s: float) -> None:
        """Forget what is over."""
        if self._in_force:
            self._in_force = [
                active
                for active in self._in_force
                if now_s < active.until_s and (active.left is None or active.left > 0)
            ]

    def stalled(self, now_s: float) -> bool:
        """True while events must wait."""
        return self._any(Stall, now_s)

    def half_open(self, now_s: float) -> bool:
        """True while nothing may go out and nothing is heard."""
        return self._any(HalfOpen, now_s)

    def pings_muted(self, now_s: float) -> bool:
        """True while no ping may go out."""
        return self._any(MutePings, now_s)

    def touches_events(self) -> bool:
        """True if ``events`` would change anything."""
        return any(isinstance(active.fault, EventFault) for active in self._in_force)

    def events(self, rows: Iterable[TapeRow], now_s: float) -> list[Event]:
        """Return what goes out instead of these rows, in order."""
        self.expire(now_s)
        events = [Event(row) for row in rows]
        for active in self._in_force:
            if isinstance(active.fault, EventFault):
                events = [sent for event in events for sent in self._play(active, event)]
        self.expire(now_s)
        return events

    def describe(self) -> list[dict[str, object]]:
        """Return the faults in force for a status report; ``left`` counts events."""
        return [
            {"number": active.number, "fault": active.fault.name, "left": active.left}
            for active in self._in_force
        ]

    def _play(self, active: _InForce, event: Event) -> list[Event]:
        fault = active.fault
        if not isinstance(fault, EventFault) or not _aimed_at(fault, event.row):
            return [event]
        if active.left is not None:
            if not active.left:
                return [event]
            active.left -= 1
        self._counts[f"fault {fault.name}"] += 1
        if isinstance(fault, Reorder):
            active.held = [*active.held, event]
            if active.left and len(active.held) < fault.block:
                return []
            block, active.held = active.held[::-1], []
            return block
        return _struck(fault, event)

    def _any(self, kind: type[ConnectionFault], now_s: float) -> bool:
        return any(isinstance(f.fault, kind) and now_s < f.until_s for f in self._in_force)


def _aimed_at(fault: EventFault, row: TapeRow) -> bool:
    return fault.symbol in {None, row.symbol} and fault.stream in {None, row.kind}


def _struck(fault: EventFault, event: Event) -> list[Event]:
    match fault:
        case Skip() | Silent():
            return []
        case Duplicate():
            return [event, event]
        case ExtraField():
            return [msgspec.structs.replace(event, extra_json=EXTRA_JSON)]
        case AbsurdId(offset=offset):
            row = event.row
            shifted = msgspec.structs.replace(
                row,
                row_id=max(0, row.row_id + offset),
                first_trade_id=max(0, row.first_trade_id + offset),
                last_trade_id=max(0, row.last_trade_id + offset),
            )
            return [event, msgspec.structs.replace(event, row=shifted)]
        case _:
            return [event]
