"""The exchange's REST side, as one node's client sees it: decoded rows, or an error."""

import asyncio
import random
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING

from k2.errors import RetryError
from k2.market import BadRow, Origin, Side, Symbol, Trade
from simulation.world.exchange_ledger import Row
from simulation.world.node import EPOCH_NS, Node

if TYPE_CHECKING:
    from simulation.world.exchange_world import ExchangeWorld

PAGE_ROWS = 1_000
CLIENT_TIMEOUT_S = 10.0


class RestState:
    """What goes wrong with REST at present; the same for every client."""

    def __init__(self) -> None:
        self.lag_s = 0.2
        """How far its database trails the stream."""
        self.down_until_s = 0.0
        self.slow_until_s = 0.0
        self.slow_by_s = 0.0
        self.calls = 0
        self.pages = 0
        """Calls that asked for rows: what healing costs."""


class SimRest:
    """One node's client."""

    def __init__(self, exchange: "ExchangeWorld", node: Node) -> None:
        self._exchange = exchange
        self._node = node
        self._rng: random.Random = exchange.rng

    async def rows_from(self, symbol: str, *, from_id: int) -> list[Trade | BadRow]:
        """Return up to 1,000 rows with ids from ``from_id`` on, ascending.

        Raises:
            RetryError: If REST cannot be asked right now.
        """
        market = self._exchange.markets[symbol]
        self._exchange.rest_state.pages += 1
        back_s = await self._ask()
        now_s = self._exchange.loop.time()
        rows = market.served(
            from_id=from_id, limit=PAGE_ROWS, now_s=now_s, lag_s=self._exchange.rest_state.lag_s
        )
        await asyncio.sleep(back_s)
        recv_ns = EPOCH_NS + round(self._exchange.loop.time() * 1e9) + self._node.wall_offset_ns
        return [decoded(symbol, row, recv_ts_ns=recv_ns) for row in rows]

    async def newest_id(self, symbol: str) -> int | None:
        """Return the newest id REST has, or None when the symbol never traded.

        Raises:
            RetryError: If REST cannot be asked right now.
        """
        market = self._exchange.markets[symbol]
        back_s = await self._ask()
        newest_id = market.newest_served(
            now_s=self._exchange.loop.time(), lag_s=self._exchange.rest_state.lag_s
        )
        await asyncio.sleep(back_s)
        return newest_id

    async def symbols(self, names: Sequence[str]) -> dict[str, Symbol]:
        """Return base and quote asset of each name the exchange lists.

        Raises:
            RetryError: If REST cannot be asked right now.
        """
        await asyncio.sleep(await self._ask())
        listed = [name for name in names if name in self._exchange.markets]
        return {name: Symbol(name, name.removesuffix("USDT"), "USDT") for name in listed}

    async def quoted_in(self, quotes: Iterable[str]) -> set[str]:
        """Return the names of symbols that trade against one of these assets."""
        await asyncio.sleep(await self._ask())
        return {name for name in self._exchange.markets if name.endswith(tuple(quotes))}

    async def _ask(self) -> float:
        """Travel to the server; return how long the way back takes."""
        self._node.check_alive()
        state, now_s = self._exchange.rest_state, self._exchange.loop.time()
        state.calls += 1
        way_s = self._rng.uniform(0.01, 0.05)
        if now_s < state.slow_until_s:
            way_s += state.slow_by_s / 2
        if self._exchange.is_cut_off(self._node) or 2 * way_s > CLIENT_TIMEOUT_S:
            await asyncio.sleep(CLIENT_TIMEOUT_S)
            raise RetryError("REST cannot be reached: timed out")
        await asyncio.sleep(way_s)
        if self._exchange.loop.time() < state.down_until_s:
            await asyncio.sleep(way_s)
            raise RetryError("REST answered 503")
        return way_s


def decoded(symbol: str, row: Row, *, recv_ts_ns: int) -> Trade | BadRow:
    """Return a row as the client's decoder hands it on."""
    if row.void:
        original = {"a": row.agg_id, "p": "0", "q": "0", "f": -1, "l": -1, "s": symbol}
        return BadRow(row.agg_id, "void", "Invalid field: the exchange voided this row", original)
    return Trade(
        symbol=symbol,
        source_id=row.agg_id,
        price=Decimal(row.price),
        quantity=Decimal(row.quantity),
        first_trade_id=row.first_fill,
        last_trade_id=row.last_fill,
        trade_ts_us=row.traded_us,
        event_ts_us=None,
        recv_ts_ns=recv_ts_ns,
        taker_side=Side.SELL if row.buyer_is_maker else Side.BUY,
        best_match=True,
        origin=Origin.HEALED,
    )
