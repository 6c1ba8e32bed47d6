"""What one connection does to the events it should pass on."""

from collections import Counter
from dataclasses import dataclass, field

from simulation.world.exchange_ledger import Row, frame_of

ABSURDLY_FAR = 10**9


@dataclass
class Glitches:
    """Faults under way on one connection; counts are events still to be struck, per symbol."""

    skip: Counter[str] = field(default_factory=Counter)
    duplicate: Counter[str] = field(default_factory=Counter)
    swap: Counter[str] = field(default_factory=Counter)
    silent_until_s: dict[str, float] = field(default_factory=dict)
    malformed: int = 0
    unknown: int = 0
    absurd: Counter[str] = field(default_factory=Counter)
    _waiting: dict[str, bytes] = field(default_factory=dict)

    def apply(self, symbol: str, row: Row, payload: bytes, *, now_s: float) -> list[bytes]:
        """Return the frames that go out in place of one event."""
        if now_s < self.silent_until_s.get(symbol, 0.0) or _take(self.skip, symbol):
            return []
        frames = [payload]
        if _take(self.duplicate, symbol):
            frames.append(payload)
        if _take(self.absurd, symbol):
            frames.insert(0, frame_of(symbol, row, agg_id=row.agg_id + ABSURDLY_FAR))
        if self.malformed > 0:
            self.malformed -= 1
            frames.append(payload[: len(payload) // 2])
        if self.unknown > 0:
            self.unknown -= 1
            frames.append(b'{"e":"somethingNew","x":1}')
        if (first := self._waiting.pop(symbol, None)) is not None:
            frames.append(first)  # the second of a swapped pair has gone before it
        elif _take(self.swap, symbol):
            self._waiting[symbol] = payload
            frames.remove(payload)
        return frames


def _take(count: Counter[str], symbol: str) -> bool:
    if count[symbol] <= 0:
        return False
    count[symbol] -= 1
    return True
