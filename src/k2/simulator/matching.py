"""The matching engine: taker orders sweep a synthetic book and become aggregates and fills.

PURE: the random generator and the times are arguments. One order gives rows of both kinds from the
same matching, so the two streams of a symbol can never tell different stories.
"""

import random

from k2.market import StreamKind
from k2.simulator.listing import Listing
from k2.simulator.rows import TapeRow, format_e8, parse_e8

LEVELS_SWEPT_MAX = 8


class Market:
    """One symbol's book and id counters. Prices and quantities are whole numbers of 10^-8."""

    def __init__(
        self,
        listing: Listing,
        *,
        rng: random.Random,
        next_agg_id: int,
        next_fill_id: int,
        last_price: str | None = None,
        last_trade_ts_us: int = 0,
    ) -> None:
        self.symbol = listing.name
        self._rng = rng
        self._next_agg_id = next_agg_id
        self._next_fill_id = next_fill_id
        self._last_trade_ts_us = last_trade_ts_us
        self._tick = parse_e8(listing.tick)
        self._step = parse_e8(listing.step)
        self._anchor = parse_e8(listing.price)
        self._typical_lots = parse_e8(listing.typical_quantity) // self._step
        # Where one tick is a large part of the price, more waits at each of them.
        self._thickness = 1 + 2000 * self._tick // self._anchor
        price = self._anchor if last_price is None else parse_e8(last_price)
        self._bid = max(self._tick, price - self._tick)
        self._ask = self._bid + self._tick
        self._bid_makers = self._level()
        self._ask_makers = self._level()

    def take(self, *, trade_ts_us: int, event_ts_us: int) -> list[TapeRow]:
        """Match one taker order against the book.

        Args:
            trade_ts_us: When it is matched; moved forward if the symbol already traded then, so
                that two orders never share a time.
            event_ts_us: When the stream server makes the events; never before the trade.

        Returns:
            For each price swept: the fills at that price, then the aggregate of them. All rows have
            one ``trade_ts_us``. The number of aggregates is 1 to ``LEVELS_SWEPT_MAX``.
        """
        trade_ts_us = max(trade_ts_us, self._last_trade_ts_us + 1)
        self._last_trade_ts_us = trade_ts_us
        event_ts_us = max(event_ts_us, trade_ts_us)
        taker_buys = self._rng.random() < 0.5
        remaining = self._lots()
        rows: list[TapeRow] = []
        for _ in range(LEVELS_SWEPT_MAX):
            makers = self._ask_makers if taker_buys else self._bid_makers
            price = format_e8(self._ask if taker_buys else self._bid)
            first_fill_id = self._next_fill_id
            level_lots = 0
            while remaining and makers:
                lots = min(remaining, makers[-1])
                remaining -= lots
                level_lots += lots
                if lots == makers[-1]:
                    makers.pop()
                else:
                    makers[-1] -= lots
                rows.append(
                    TapeRow(
                        self.symbol,
                        StreamKind.TRADE,
                        self._next_fill_id,
                        price,
                        format_e8(lots * self._step),
                        self._next_fill_id,
                        self._next_fill_id,
                        trade_ts_us,
                        event_ts_us,
                        not taker_buys,
                    )
                )
                self._next_fill_id += 1
            rows.append(
                TapeRow(
                    self.symbol,
                    StreamKind.AGG_TRADE,
                    self._next_agg_id,
                    price,
                    format_e8(level_lots * self._step),
                    first_fill_id,
                    self._next_fill_id - 1,
                    trade_ts_us,
                    event_ts_us,
                    not taker_buys,
                )
            )
            self._next_agg_id += 1
            if not makers and not self._next_level(taker_buys):
                break
            if not remaining:
                break
        self._drift()
        return rows

    def _lots(self) -> int:
        return max(1, int(self._typical_lots * self._rng.lognormvariate(-0.5, 1.0)))

    def _level(self) -> list[int]:
        """Return the maker orders waiting at one price, in lots."""
        orders = 2 + int(6 * self._rng.random() ** 2)
        return [self._thickness * self._lots() for _ in range(orders)]

    def _next_level(self, taker_buys: bool) -> bool:
        """Move an emptied side one level away, and let the other side follow.

        False if there is no lower price to bid; what the taker still wants is then cancelled.
        """
        away = self._tick * (1 + int(4 * self._rng.random() ** 4))
        if taker_buys:
            self._ask += away
            self._ask_makers = self._level()
            if self._ask - self._bid > 2 * self._tick:
                self._bid = self._ask - self._tick
                self._bid_makers = self._level()
        else:
            floor_reached = self._bid == self._tick
            self._bid = max(self._tick, self._bid - away)
            self._bid_makers = self._level()
            if floor_reached:
                return False
            if self._ask - self._bid > 2 * self._tick:
                self._ask = self._bid + self._tick
                self._ask_makers = self._level()
        return True

    def _drift(self) -> None:
        """Let quotes wander without a trade, pulled gently back to the listing's price."""
        if self._rng.random() * self._thickness > 0.2:
            return
        move = self._tick * (1 + self._anchor // self._tick // 200_000)
        per_mille_low = (self._anchor - self._bid) * 1000 // self._anchor
        bias = max(-450, min(450, 4 * per_mille_low))
        if self._rng.random() * 1000 >= 500 + bias:
            move = -move
        if self._bid + move >= self._tick:
            self._bid += move
            self._ask += move
