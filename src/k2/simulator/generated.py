"""The generated tape: who trades when. Seed and times in, rows out.

PURE: every random number comes from generators seeded here by the caller's seed.
"""

import itertools
import random
from collections.abc import Iterable
from typing import Protocol

from k2.market import StreamKind
from k2.simulator.matching import Market
from k2.simulator.rows import TapeRow

STALL_CAUGHT_UP_MAX_S = 1.0
"""After a longer stall of the process the exchange simply traded less, as after a halt."""
ORDERS_PER_STEP_MAX = 4000
"""Bounds one step, so that a rate beyond the machine slows the tape and nothing else."""


class Tape(Protocol):
    """A source of rows that is asked again and again what has happened since."""

    def advance(self, *, start_us: int, end_us: int) -> list[TapeRow]:
        """Return the rows of the half-open wall-clock interval, in publishing order."""
        ...

    @property
    def finished(self) -> bool:
        """True when no row will ever follow."""
        ...


class GeneratedTape:
    """Orders arrive at ``rate`` aggregates per second, spread over symbols by activity."""

    def __init__(
        self, markets: Iterable[tuple[Market, int]], *, rate: float, rng: random.Random
    ) -> None:
        self._activities: dict[str, tuple[Market, int]] = {}
        self._markets: list[Market] = []
        self._cumulative: list[int] = []
        self.rate = rate
        self._rng = rng
        self._credit = 0.0
        for market, activity in markets:
            self.start(market, activity)

    def start(self, market: Market, activity: int) -> None:
        """Let a symbol trade (in place of the market it had) from the next step on."""
        if activity > 0:
            self._activities[market.symbol] = market, activity
            self._share_out()

    def stop(self, symbol: str) -> None:
        """Let a symbol trade no more; the others share its part of the rate."""
        if self._activities.pop(symbol, None) is not None:
            self._share_out()

    def _share_out(self) -> None:
        self._markets = [market for market, _ in self._activities.values()]
        activities = [activity for _, activity in self._activities.values()]
        self._cumulative = list(itertools.accumulate(activities))

    @property
    def finished(self) -> bool:
        """A generated tape never ends."""
        return False

    def advance(self, *, start_us: int, end_us: int) -> list[TapeRow]:
        """Match the orders of one interval, evenly spread over it.

        The rate holds on average: an order that sweeps several prices uses up as many aggregates.
        """
        if not self._markets or end_us <= start_us:
            return []
        interval_s = (end_us - start_us) / 1e6
        earned = self.rate * interval_s * 2 * self._rng.random()
        self._credit = min(self._credit + earned, self.rate * STALL_CAUGHT_UP_MAX_S + 1)
        orders = min(int(self._credit), ORDERS_PER_STEP_MAX)
        if orders <= 0:
            return []
        rows: list[TapeRow] = []
        chosen = self._rng.choices(self._markets, cum_weights=self._cumulative, k=orders)
        for place, market in enumerate(chosen):
            if self._credit < 1:
                break
            trade_ts_us = start_us + (end_us - start_us) * place // orders
            taken = market.take(trade_ts_us=trade_ts_us, event_ts_us=end_us)
            self._credit -= sum(row.kind is StreamKind.AGG_TRADE for row in taken)
            rows += taken
        return rows
