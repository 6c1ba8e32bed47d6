"""Fills holes: reads each symbol's next id, fetches what follows it, gives it to the tape.

Start-up, a reconnect, a hole in the stream and a full ring are the same case. Only the symbol
concerned waits. Only the writer heals: a standby's holes cost no REST weight.
"""

import asyncio
from collections.abc import Callable
from typing import NamedTuple

import structlog

from k2.ingestion.host import Host
from k2.ingestion.past import page_from
from k2.ingestion.ports import Rest
from k2.kafka.position import NEVER_TRADED
from k2.market import BadRow, Gap, IdRange, Trade
from k2.observability import metrics
from k2.tape.arbiter import Placed, SymbolTape
from k2.tape.healing import PAGE_ROWS, PagePlaced, declare_missing, place_page

FAR_AHEAD = 100_000
"""Ids further than this beyond REST's newest are not believed: one mangled id must not silence
a symbol."""

PAGES_AT_ONCE_MAX = 4
"""Pages of one symbol asked for together, once full pages show that there is much to fetch."""

POLL_DELAY_S = 0.25
POLL_DELAY_MAX_S = 5.0
"""A hole REST cannot fill yet must not spend the weight that heals the other symbols."""

DOUBTED_MAX = 100
"""One mangled id, or some, may be let go on REST's word; a whole stream ahead of it may not."""

REMIND_EVERY_S = 30.0
BEGIN_DELAY_S = 60.0
"""How often REST is asked again about a symbol that has never traded, unless a trade comes."""

_log = structlog.get_logger()


class Healing(NamedTuple):
    """What every healer of a shard shares."""

    rest: Rest
    write: Callable[[list[Placed | Gap]], None]
    room: Callable[[], bool]
    """Whether the shard's ring takes more."""
    unspill: Callable[[str], bool]
    """Puts what was spilled back on the tape, when its hole is closed."""
    hears: Callable[[], bool]
    """Whether the stream is heard: a deaf writer declares no gap, it steps down."""
    reject_row: Callable[[BadRow], None]
    reject_trade: Callable[[Trade], None]
    host: Host
    heal_wait_max_s: float
    leg_wait_s: float
    """How long a hole waits for the other leg before REST is asked."""


class SymbolHealer:
    """Heals one symbol, whenever woken."""

    def __init__(
        self, tape: SymbolTape, healing: Healing, *, record_start: Callable[[int], None]
    ) -> None:
        """Join a tape with its shard; ``record_start`` has a new tape's first id written."""
        self.tape = tape
        self.newest_id: int | None = None
        """Newest id REST had before we listened; a tape without position starts after it."""
        self.opened_s: float | None = None
        """When the hole that is being healed was found; None while nothing is missing."""
        self._healing = healing
        self._record_start = record_start
        self._wake = asyncio.Event()
        self._look_now = False
        self._fetched = 0
        self._task: asyncio.Task[None] | None = None
        self._stopped = False
        self._remind_at_s = 0.0

    def hole(self) -> None:
        """Trades wait for missing ids: the other leg may have them, else REST."""
        self._wake.set()

    def look(self) -> None:
        """Something may be missing that no held trade shows: ask REST."""
        self._look_now = True
        self._wake.set()

    def stop(self) -> None:
        """The symbol is recorded no more, perhaps before ``run`` has begun."""
        self._stopped = True
        if self._task is not None:
            self._task.cancel()

    async def run(self) -> None:
        """Heal until ``stop``."""
        if self._stopped:
            return
        self._task = asyncio.current_task()
        gauge = metrics.holes_open.labels(self.tape.symbol)
        gauge.set(0)
        while True:
            if not self._look_now:
                await self._wake.wait()
            self._wake.clear()
            look, self._look_now = self._look_now, False
            if self.tape.next_id is None:
                await self._begin()
            if not look:
                await asyncio.sleep(self._healing.leg_wait_s)
                if self.tape.hole is None:
                    continue
            gauge.set(1)
            self.opened_s = self._healing.host.monotonic_s()
            try:
                await self._catch_up()
            finally:
                self.opened_s = None
                gauge.set(0)

    async def _begin(self) -> None:
        """Find out where a tape without position starts."""
        symbol = self.tape.symbol
        start = None if self.newest_id is None else self.newest_id + 1
        if start is None:
            self._record_start(NEVER_TRADED.next_id)
        while start is None:
            # It had never traded when we began to listen: its first id, by the exchange's word.
            rows = await self._rows(0)
            if rows:
                start = rows[0].source_id
                break
            self._wake.clear()
            try:
                async with asyncio.timeout(POLL_DELAY_S if self.tape.held else BEGIN_DELAY_S):
                    await self._wake.wait()
            except TimeoutError:
                continue
        _log.info("tape_begins", symbol=symbol, next_id=start)
        # Recorded before its first trade: should we die in between, the next start asks from here.
        self._record_start(start)
        self._healing.write(list(self.tape.begin(start)))

    async def _catch_up(self) -> None:
        """Fetch from the next id until REST has no more and nothing is held back."""
        symbol, now_s = self.tape.symbol, self._healing.host.monotonic_s
        first_id, began_s = self.tape.next_id, now_s()
        self._fetched = 0
        lacking_since: tuple[int, float] | None = None
        delay_s, fetched, pages_at_once = POLL_DELAY_S, 0, 1
        while True:
            page = await self._fetch(pages_at_once)
            if page.more and page.lacking is None:
                pages_at_once = PAGES_AT_ONCE_MAX
                continue
            pages_at_once = 1
            if self._healing.unspill(symbol):
                continue
            if self.tape.hole is None and page.lacking is None:
                break
            if page.lacking is None:
                lacking_since = None
            elif lacking_since is None or lacking_since[0] != page.lacking.first_id:
                lacking_since = (page.lacking.first_id, now_s())
            elif (
                waited_s := now_s() - lacking_since[1]
            ) >= self._healing.heal_wait_max_s and self._healing.hears():
                self._declare(page.lacking, waited_s)
                delay_s = POLL_DELAY_S
                continue
            self._remind(began_s)
            # Not when the tape moved: below an id far ahead it does with every live trade.
            if self._fetched != fetched:
                delay_s, fetched = POLL_DELAY_S, self._fetched
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, POLL_DELAY_MAX_S)
        if self.tape.next_id != first_id:
            if self._fetched:
                metrics.holes_healed.labels(symbol).inc()
            _log.info(
                "tape_caught_up",
                symbol=symbol,
                from_id=first_id,
                next_id=self.tape.next_id,
                took_s=round(now_s() - began_s, 3),
            )

    async def _fetch(self, pages: int) -> PagePlaced:
        """Ask for so many pages at once and place them in order; return what the last came to."""
        while not self._healing.room():  # noqa: ASYNC110 - room comes with the next commit
            await asyncio.sleep(POLL_DELAY_S)
        next_id = self.tape.next_id or 0
        asked = [next_id + number * PAGE_ROWS for number in range(pages)]
        answers = await asyncio.gather(*(self._rows(from_id) for from_id in asked))
        placed = PagePlaced([], [], more=False, lacking=None)
        for from_id, rows in zip(asked, answers, strict=True):
            placed = place_page(self.tape, rows)
            self._healing.write(placed.items)
            self._fetched += len(placed.items)
            for row in placed.bad_rows:
                self._healing.reject_row(row)
            if not placed.more:
                self._judge_held(rows[-1].source_id if rows else from_id - 1)
                break
        return placed

    def _judge_held(self, newest_id: int) -> None:
        """Let go of held ids far above the newest one REST has."""
        if self.tape.held > DOUBTED_MAX:
            return  # a REST that trails, or glitched: that is no word against so many
        for trade in self.tape.disbelieve(above_id=newest_id + FAR_AHEAD):
            self._healing.reject_trade(trade)

    async def _rows(self, from_id: int) -> list[Trade | BadRow]:
        rest, host = self._healing.rest, self._healing.host
        return await page_from(
            rest, self.tape.symbol, from_id=from_id, host=host, unlisted=self._unlisted
        )

    def _unlisted(self) -> None:
        self.opened_s = None  # nothing waits for this one: it may never come back

    def _declare(self, lacking: IdRange, waited_s: float) -> None:
        self._healing.write(declare_missing(self.tape, lacking, waited_s=waited_s))
        _log.error(
            "gap_declared",
            symbol=self.tape.symbol,
            first_id=lacking.first_id,
            last_id=lacking.last_id,
            repairs="are tried for as long as it is open: `k2 gaps`",
        )

    def _remind(self, began_s: float) -> None:
        now_s = self._healing.host.monotonic_s()
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
