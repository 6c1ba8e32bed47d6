"""PURE: what we heard, against what the writer wrote: the figure a deployment is judged by."""

from collections import OrderedDict
from decimal import Decimal
from typing import NamedTuple

import msgspec

from k2.market import Side, Trade

PENDING_MAX = 50_000
"""Trades of each side that wait for the other; beyond it the oldest heard ones are not judged, the
oldest written ones count as not heard."""

SETTLED_AFTER_S = 30.0
"""Whatever the other side has not shown within this time, it does not have."""


class Print(NamedTuple):
    """A trade as the market prints it, however it reached us."""

    price: Decimal
    quantity: Decimal
    taker_side: Side
    first_trade_id: int
    last_trade_id: int
    trade_ts_us: int

    @classmethod
    def of(cls, trade: Trade) -> "Print":
        """Return the print of a trade."""
        return cls(
            trade.price,
            trade.quantity,
            trade.taker_side,
            trade.first_trade_id,
            trade.last_trade_id,
            trade.trade_ts_us,
        )


class Figures(msgspec.Struct):
    """One symbol's comparison. Counters only grow."""

    equal: int = 0
    different: int = 0
    not_heard: int = 0
    """The writer wrote it, our legs never brought it (the writer may have had it by REST)."""
    not_written: int = 0
    """Our legs brought it, the writer did not write it."""
    example: str = ""
    """The latest id that was not equal."""

    @property
    def share_equal(self) -> float | None:
        """The part of all judged trades that both sides tell alike; None while none was judged."""
        judged = self.equal + self.different + self.not_heard + self.not_written
        return round(self.equal / judged, 6) if judged else None


class Comparison:
    """Matches both sides by symbol and id. Times are seconds of one monotonic clock."""

    def __init__(self, *, pending_max: int = PENDING_MAX) -> None:
        """Compare from the first trade of each symbol that we hear."""
        self.figures: dict[str, Figures] = {}
        self._first_heard: dict[str, int] = {}
        self._heard: OrderedDict[tuple[str, int], tuple[Print, float]] = OrderedDict()
        self._written: OrderedDict[tuple[str, int], tuple[Print, float]] = OrderedDict()
        self._last_written: dict[str, int] = {}
        self._unjudged_to: dict[str, int] = {}
        self._pending_max = pending_max

    def heard(self, trade: Trade, now_s: float) -> None:
        """Take in the first copy of a trade our legs brought."""
        symbol, source_id = trade.symbol, trade.source_id
        if symbol not in self._first_heard:
            self._first_heard[symbol] = source_id
            self.figures[symbol] = Figures()
        ours = Print.of(trade)
        theirs = self._written.pop((symbol, source_id), None)
        if theirs is not None:
            self._judge(symbol, source_id, ours, theirs[0])
        else:
            self._heard[symbol, source_id] = (ours, now_s)
            if len(self._heard) > self._pending_max:
                dropped, dropped_id = self._heard.popitem(last=False)[0]
                self._unjudged_to[dropped] = max(dropped_id, self._unjudged_to.get(dropped, -1))

    def written(self, symbol: str, source_id: int, theirs: Print, now_s: float) -> None:
        """Take in a trade the writer committed."""
        self._last_written[symbol] = source_id
        if source_id < self._first_heard.get(symbol, source_id + 1):
            return  # from before we listened
        if source_id <= self._unjudged_to.get(symbol, -1):
            return  # heard, and let go since: the writer was away for long
        ours = self._heard.pop((symbol, source_id), None)
        if ours is not None:
            self._judge(symbol, source_id, ours[0], theirs)
        else:
            self._written[symbol, source_id] = (theirs, now_s)
            if len(self._written) > self._pending_max:
                self._not_heard(self._written.popitem(last=False)[0])

    def settle(self, now_s: float) -> None:
        """Judge what has waited for the other side for long enough."""
        while self._written:
            key, (_, since_s) = next(iter(self._written.items()))
            if now_s - since_s < SETTLED_AFTER_S:
                break
            del self._written[key]
            self._not_heard(key)
        # The topic is in id order: only what the writer has passed will not come any more.
        passed = [
            (symbol, source_id)
            for (symbol, source_id), (_, since_s) in self._heard.items()
            if now_s - since_s >= SETTLED_AFTER_S and source_id < self._last_written.get(symbol, -1)
        ]
        for key in passed:
            del self._heard[key]
            self._not_written(key)

    def forget(self) -> None:
        """Start anew: we have become the writer, or stopped to listen."""
        self._first_heard.clear()
        self._last_written.clear()
        self._unjudged_to.clear()
        self._heard.clear()
        self._written.clear()

    def _judge(self, symbol: str, source_id: int, ours: Print, theirs: Print) -> None:
        figures = self.figures[symbol]
        if ours == theirs:
            figures.equal += 1
            return
        figures.different += 1
        names = [n for n, a, b in zip(Print._fields, ours, theirs, strict=True) if a != b]
        figures.example = f"{source_id} differs in {', '.join(names)}"

    def _not_written(self, key: tuple[str, int]) -> None:
        self.figures[key[0]].not_written += 1
        self.figures[key[0]].example = f"{key[1]} was not written"

    def _not_heard(self, key: tuple[str, int]) -> None:
        self.figures[key[0]].not_heard += 1
        self.figures[key[0]].example = f"{key[1]} was not heard"
