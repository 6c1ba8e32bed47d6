"""Fills holes: reads each symbol's next id, fetches what follows it, gives it to the tape.

Start-up, a reconnect, a hole in the stream and a full ring are the same case. Only the symbol
concerned waits.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Protocol

import structlog

from k2.errors import RetryError
from k2.market import BadRow, Gap, Trade
from k2.observability import metrics
from k2.tape.arbiter import Placed, SymbolTape
from k2.tape.healing import PagePlaced, declare_missing, place_page

FAR_AHEAD = 100_000
"""Ids further than this beyond REST's newest are not believed: one mangled id must not silence
a symbol."""

POLL_DELAY_S = 0.25
POLL_DELAY_MAX_S = 5.0
"""A hole REST cannot fill yet must not spend the weight that heals the other symbols."""

FAILED_DELAY_S = 1.0
REMIND_EVERY_S = 30.0

_log = structlog.get_logger()


class PastRows(Protocol):
    """Where the past comes from (REST)."""

    def rows_from(self, symbol: str, *, from_id: int) -> Awaitable[list[Trade | BadRow]]:
        """Return rows with ids from ``from_id`` on, ascending."""
        ...


class SymbolHealer:
    """Heals one symbol, whenever woken."""

    def __init__(
        self,
        tape: SymbolTape,
        rest: PastRows,
        *,
        write: Callable[[list[Placed | Gap]], None],
        room: Callable[[], bool],
        reject_row: Callable[[BadRow], None],
        reject_trade: Callable[[Trade], None],
        heal_wait_max_s: float,
    ) -> None:
        """Join tape, REST and the shard's ring (``write``, ``room``) with the dead letters."""
        self.tape = tape
        self._rest = rest
        self._write = write
        self._room = room
        self._reject_row = reject_row
        self._reject_trade = reject_trade
        self._heal_wait_max_s = heal_wait_max_s
        self._wake = asyncio.Event()
        self._remind_at_s = 0.0

    def wake(self) -> None:
        """Something may be missing: look."""
        self._wake.set()

    async def run(self) -> None:
        """Heal for ever."""
        gauge = metrics.holes_open.labels(self.tape.symbol)
        gauge.set(0)
        while True:
            await self._wake.wait()
            self._wake.clear()
            if self.tape.next_id is None:
                continue  # nothing traded yet: the first trade starts the tape
            gauge.set(1)
            await self._catch_up()
            gauge.set(0)

    async def _catch_up(self) -> None:
        """Fetch from the next id until REST has no more and nothing is held back."""
        symbol = self.tape.symbol
        first_id, began_s = self.tape.next_id, time.monotonic()
        lacking_since: tuple[int, float] | None = None
        delay_s, reached_id = POLL_DELAY_S, first_id
        while True:
            page = await self._fetch_page()
            if page.more and page.lacking is None:
                continue
            if self.tape.hole is None and page.lacking is None:
                break
            if page.lacking is None:
                lacking_since = None
            elif lacking_since is None or lacking_since[0] != page.lacking.first_id:
                lacking_since = (page.lacking.first_id, time.monotonic())
            elif (waited_s := time.monotonic() - lacking_since[1]) >= self._heal_wait_max_s:
                self._write(declare_missing(self.tape, page.lacking, waited_s=waited_s))
                _log.error(
                    "gap_declared",
                    symbol=symbol,
                    first_id=page.lacking.first_id,
                    last_id=page.lacking.last_id,
                )
                continue
            self._remind(began_s)
            await asyncio.sleep(delay_s)
            moved = self.tape.next_id != reached_id
            delay_s = POLL_DELAY_S if moved else min(2 * delay_s, POLL_DELAY_MAX_S)
            reached_id = self.tape.next_id
        if self.tape.next_id != first_id:
            _log.info(
                "tape_caught_up",
                symbol=symbol,
                from_id=first_id,
                next_id=self.tape.next_id,
                took_s=round(time.monotonic() - began_s, 3),
            )

    async def _fetch_page(self) -> PagePlaced:
        while True:
            while not self._room():  # noqa: ASYNC110 - room comes with the next commit
                await asyncio.sleep(POLL_DELAY_S)
            next_id = self.tape.next_id or 0
            try:
                rows = await self._rest.rows_from(self.tape.symbol, from_id=next_id)
            except RetryError as exc:
                _log.warning("heal_waits", symbol=self.tape.symbol, reason=str(exc))
                await asyncio.sleep(FAILED_DELAY_S)
                continue
            page = place_page(self.tape, rows)
            self._write(page.items)
            for row in page.bad_rows:
                self._reject_row(row)
            if not page.more:
                newest_id = rows[-1].source_id if rows else next_id - 1
                for trade in self.tape.disbelieve(above_id=newest_id + FAR_AHEAD):
                    self._reject_trade(trade)
            return page

    def _remind(self, began_s: float) -> None:
        now_s = time.monotonic()
        if now_s - began_s < REMIND_EVERY_S or now_s < self._remind_at_s:
            return
        self._remind_at_s = now_s + REMIND_EVERY_S
        hole = self.tape.hole
        _log.warning(
            "hole_stays_open",
            symbol=self.tape.symbol,
            first_missing_id=hole.first_id if hole else None,
            last_missing_id=hole.last_id if hole else None,
            held=self.tape.held,
            open_s=round(now_s - began_s),
        )
