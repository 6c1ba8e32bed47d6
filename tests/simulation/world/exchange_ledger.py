"""What the exchange traded: per symbol consecutive ids, and the frame each trade is published as.

Shares no code with the venue's decoder: a simulation that shared it would share its bugs.
"""

import random
from bisect import bisect_right
from typing import NamedTuple

from simulation.world.node import EPOCH_NS


class Row(NamedTuple):
    """One aggregate trade, in the exchange's own words."""

    agg_id: int
    price: str
    quantity: str
    first_fill: int
    last_fill: int
    traded_us: int
    buyer_is_maker: bool
    published_s: float

    @property
    def void(self) -> bool:
        """Whether the exchange voided it."""
        return self.first_fill < 0


class Hidden(NamedTuple):
    """Ids REST does not have for a while."""

    first_id: int
    last_id: int
    from_s: float
    until_s: float


class Market:
    """One symbol's ledger; rows are kept for ever, the id says where."""

    def __init__(self, symbol: str, *, rate_per_s: float, first_id: int) -> None:
        """Begin without a row; ``rate_per_s`` is the mean of its Poisson arrivals."""
        self.symbol = symbol
        self.rate_per_s = rate_per_s
        self.first_id = first_id
        self.rows: list[Row] = []
        self.hidden: list[Hidden] = []
        self.void_next = False
        """The next trade is one the exchange voids."""
        self._next_fill = first_id * 3
        self._price_ticks = 5_000_000

    @property
    def newest_id(self) -> int | None:
        """The id traded last."""
        return self.rows[-1].agg_id if self.rows else None

    def row(self, agg_id: int) -> Row | None:
        """Return a row by its id."""
        index = agg_id - self.first_id
        return self.rows[index] if 0 <= index < len(self.rows) else None

    def trade(self, rng: random.Random, *, now_s: float) -> Row:
        """Add one trade."""
        agg_id = self.first_id + len(self.rows)
        traded_us = EPOCH_NS // 1000 + round(now_s * 1e6)
        if self.void_next:
            self.void_next = False
            row = Row(agg_id, "0", "0", -1, -1, traded_us, False, now_s)
        else:
            self._price_ticks = max(1, self._price_ticks + rng.randrange(-9, 10))
            fills = rng.randrange(1, 4)
            price = f"{self._price_ticks // 100}.{self._price_ticks % 100:02d}000000"
            quantity = f"{rng.randrange(1, 100_000) / 1e5:.8f}"
            first, self._next_fill = self._next_fill, self._next_fill + fills
            maker = rng.random() < 0.5
            row = Row(agg_id, price, quantity, first, first + fills - 1, traded_us, maker, now_s)
        self.rows.append(row)
        return row

    def hide(self, *, first_id: int, last_id: int, from_s: float, until_s: float) -> None:
        """Let REST lack some ids for a while."""
        self.hidden.append(Hidden(first_id, last_id, from_s, until_s))

    def served(self, *, from_id: int, limit: int, now_s: float, lag_s: float) -> list[Row]:
        """Return what REST serves now: its database trails the stream."""
        start = max(0, from_id - self.first_id)
        end = bisect_right(self.rows, now_s - lag_s, key=_published)
        if not self.hidden:
            return self.rows[start : min(end, start + limit)]
        found: list[Row] = []
        for row in self.rows[start:end]:
            if len(found) == limit:
                break
            if not self.hides(row.agg_id, now_s=now_s):
                found.append(row)
        return found

    def hides(self, agg_id: int, *, now_s: float) -> bool:
        """Say whether REST lacks an id now."""
        return any(
            hidden.first_id <= agg_id <= hidden.last_id and hidden.from_s <= now_s < hidden.until_s
            for hidden in self.hidden
        )

    def lacked(self, agg_id: int, *, from_s: float, to_s: float) -> bool:
        """Say whether REST lacked an id at some moment of a time span."""
        return any(
            hidden.first_id <= agg_id <= hidden.last_id
            and hidden.from_s <= to_s
            and hidden.until_s > from_s
            for hidden in self.hidden
        )

    def newest_served(self, *, now_s: float, lag_s: float) -> int | None:
        """Return the newest id REST knows of."""
        end = bisect_right(self.rows, now_s - lag_s, key=_published)
        for index in range(end - 1, -1, -1):
            row = self.rows[index]
            if not self.hides(row.agg_id, now_s=now_s):
                return row.agg_id
        return None


def frame_of(symbol: str, row: Row, *, agg_id: int | None = None) -> bytes:
    """Return the raw event of a trade, times in microseconds."""
    maker = "true" if row.buyer_is_maker else "false"
    return (
        f'{{"e":"aggTrade","E":{row.traded_us + 150},"s":"{symbol}",'
        f'"a":{row.agg_id if agg_id is None else agg_id},'
        f'"p":"{row.price}","q":"{row.quantity}","f":{row.first_fill},"l":{row.last_fill},'
        f'"T":{row.traded_us},"m":{maker},"M":true}}'
    ).encode()


def _published(row: Row) -> float:
    return row.published_s
