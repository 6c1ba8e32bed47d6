"""The stream faults of the whole exchange: numbers, void rows, refused handshakes.

PURE: times are seconds of a steady clock, given by the caller.
"""

import math
from collections import Counter

import msgspec

from k2.market import StreamKind
from k2.simulator.rows import TapeRow
from k2.simulator.stream_faults import (
    ConnectionFault,
    LastingFault,
    Refuse,
    StreamFault,
    Void,
)


class Standing(msgspec.Struct):
    """A fault that outlives the moment of its order; ``left`` counts void rows."""

    number: int
    fault: StreamFault
    until_s: float
    left: int = 0


class FaultOrders:
    """Numbers every fault, and remembers those that are not one connection's alone."""

    def __init__(self, counts: Counter[str]) -> None:
        self._counts = counts
        self._next_number = 1
        self._standing: list[Standing] = []

    def take(self, fault: StreamFault, *, now_s: float) -> int:
        """Number an order."""
        number = self._next_number
        self._next_number += 1
        if isinstance(fault, Void):
            self._standing.append(Standing(number, fault, math.inf, fault.count))
        elif isinstance(fault, Refuse) or outlives_connections(fault):
            duration_s = getattr(fault, "duration_s", None)
            until_s = math.inf if duration_s is None else now_s + duration_s
            self._standing.append(Standing(number, fault, until_s))
        return number

    def cancel(self, number: int | None) -> None:
        """Forget one order, or all."""
        self._standing = [s for s in self._standing if number not in {None, s.number}]

    def for_newcomer(self, now_s: float) -> list[tuple[int, ConnectionFault]]:
        """Return what a connection opened now must suffer, with the time that is left."""
        found: list[tuple[int, ConnectionFault]] = []
        for standing in self._in_force(now_s):
            fault = standing.fault
            if isinstance(fault, LastingFault):
                if not math.isinf(standing.until_s):
                    left_s = standing.until_s - now_s
                    fault = msgspec.structs.replace(fault, duration_s=left_s)
                found.append((standing.number, fault))
        return found

    def refusal(self, now_s: float) -> int | None:
        """Return the HTTP status new handshakes are refused with, if they are."""
        for standing in self._in_force(now_s):
            if isinstance(standing.fault, Refuse):
                self._counts["fault refuse"] += 1
                return standing.fault.status
        return None

    def published(self, rows: list[TapeRow]) -> list[TapeRow]:
        """Return rows as they are to be kept and sent: with the void ones that were ordered.

        Source: Binance spot API docs, changelog of April 2022: ``p="0"``, ``q="0"``, ``f=-1``,
        ``l=-1`` (fact sheet 5.4, checked 2026-11-21).
        """
        voids = [standing for standing in self._standing if isinstance(standing.fault, Void)]
        return [self._perhaps_void(row, voids) for row in rows] if voids else rows

    def describe(self, now_s: float) -> list[dict[str, object]]:
        """Return the orders still standing, for a status report."""
        return [
            {"number": s.number, "fault": s.fault.name, "left": s.left or None}
            for s in self._in_force(now_s)
        ]

    def _perhaps_void(self, row: TapeRow, voids: list[Standing]) -> TapeRow:
        if row.kind is not StreamKind.AGG_TRADE:
            return row
        for standing in voids:
            fault = standing.fault
            if isinstance(fault, Void) and standing.left and fault.symbol in {None, row.symbol}:
                standing.left -= 1
                if not standing.left:
                    self.cancel(standing.number)
                self._counts["fault void"] += 1
                return msgspec.structs.replace(
                    row, price="0", quantity="0", first_trade_id=-1, last_trade_id=-1
                )
        return row

    def _in_force(self, now_s: float) -> list[Standing]:
        self._standing = [s for s in self._standing if now_s < s.until_s]
        return self._standing


def outlives_connections(fault: StreamFault) -> bool:
    """True if a connection opened later suffers it too."""
    return isinstance(fault, LastingFault) and fault.which == "all"
