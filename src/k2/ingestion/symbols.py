"""Symbols live: what is recorded follows the file, the listings and the log, without a restart."""

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

import structlog

from k2.errors import K2Error, RetryError
from k2.ingestion.host import Host
from k2.ingestion.ports import Rest
from k2.ingestion.symbols_file import read_wanted
from k2.market import Symbol
from k2.market.wanted import Return, Wanted

LOOK_EVERY_S = 1.0
AGAIN_AFTER_S = 60.0
"""A listing that could not be had is asked for again; it weighs a lot."""

RETURN_MAX_IDS = 1_000_000
"""A symbol that comes back after more ids than this waits for the operator's choice."""

_log = structlog.get_logger()


class Carrier(Protocol):
    """Who records: the capture."""

    def carried(self) -> set[str]:
        """Return what is recorded now."""

    def recorded(self) -> set[str]:
        """Return the active set, as the log tells it."""

    def next_id(self, symbol: str) -> int | None:
        """Return where a symbol's tape stands, if it has one."""

    def add(self, listed: Symbol, *, newest_id: int | None, declare: bool) -> None:
        """Record one more symbol."""

    def remove(self, symbol: str) -> None:
        """Record a symbol no more."""


class SymbolWatch:
    """Compares what is wanted with what is recorded, whenever one of them may have changed."""

    def __init__(
        self,
        carrier: Carrier,
        rest: Rest,
        *,
        wanted: Wanted,
        file: Path | None,
        listing_every_s: float,
        host: Host,
    ) -> None:
        """Start from what was wanted when the process began."""
        self._carrier = carrier
        self._rest = rest
        self._wanted = wanted
        self._file = file
        self._listing_every_s = listing_every_s
        self._host = host
        self._changed = asyncio.Event()
        self._stamp = _stamp(file)
        self._listing_due_s = host.monotonic_s()
        self._refused: set[str] = set()
        self._of_quotes: set[str] = set()
        self._halted: set[str] = set()
        self._gone: set[str] = set()
        self._recorded: set[str] = set()

    def look(self) -> None:
        """The log's active set may have changed."""
        self._changed.set()

    async def run(self) -> None:
        """Follow for ever."""
        self._recorded = self._carrier.recorded()
        while True:
            await self._wait()
            if self._file is not None and (stamp := _stamp(self._file)) != self._stamp:
                self._stamp = stamp
                self._read(self._file)
            try:
                await self._follow_listings()
                await self._apply()
            except RetryError as exc:
                _log.warning("symbols_wait", reason=str(exc))
                self._changed.set()
                await asyncio.sleep(LOOK_EVERY_S)

    def _read(self, file: Path) -> None:
        quotes = self._wanted.quotes
        try:
            self._wanted = read_wanted(file)
        except K2Error as exc:
            _log.error("symbols_file_not_understood", reason=str(exc))  # the old set goes on
            return
        if self._wanted.quotes != quotes:
            self._listing_due_s = self._host.monotonic_s()
        self._refused.clear()
        self._changed.set()
        _log.info("symbols_file_read", names=sorted(self._wanted.names))

    async def _follow_listings(self) -> None:
        now_s = self._host.monotonic_s()
        if not self._wanted.quotes or now_s < self._listing_due_s:
            return
        self._listing_due_s = now_s + min(AGAIN_AFTER_S, self._listing_every_s)
        trading = await self._rest.quoted_in(self._wanted.quotes)
        absent = (self._of_quotes - trading) & self._carrier.carried() - self._wanted.names
        # A halt or maintenance ends: what is still listed, whatever its status, stays recorded.
        listed = await self._rest.symbols(sorted(absent)) if absent else {}
        self._listing_due_s = now_s + self._listing_every_s
        halted, gone = absent & listed.keys(), absent - listed.keys()
        if len(gone) > 1 and not trading and not halted:
            _log.warning("listing_not_believed", why="it has none of the symbols; all stay")
            return
        if news := halted - self._halted:
            _log.warning("symbols_halted", symbols=sorted(news), why="listed, but not TRADING")
        for symbol in sorted(gone):
            _log.warning("symbol_delisted", symbol=symbol)
            self._carrier.remove(symbol)
        self._halted = halted
        self._gone = (self._gone | gone) - trading
        self._of_quotes = trading | halted
        self._changed.set()

    async def _apply(self) -> None:
        if not self._changed.is_set():
            return
        self._changed.clear()
        wanted, carrier = self._wanted, self._carrier
        for symbol in sorted(wanted.leaving & (carrier.carried() | carrier.recorded())):
            _log.info("symbol_removed", symbol=symbol)
            carrier.remove(symbol)
        recorded = carrier.recorded()
        for symbol in sorted((self._recorded - recorded) & carrier.carried()):
            _log.info("symbol_removed", symbol=symbol, by="the writer, as the log tells")
            carrier.remove(symbol)
            self._gone.add(symbol)
        self._recorded = recorded
        target = (wanted.names | self._of_quotes | carrier.recorded()) - wanted.leaving
        # The log names a delisted symbol until the writer has recorded that it left.
        # A file says what is wanted now; a list given at the start was given before it left.
        gone = self._gone - wanted.names if self._file is not None else self._gone
        new = target - carrier.carried() - self._refused - gone
        if new:
            await self._add(sorted(new))

    async def _add(self, names: Iterable[str]) -> None:
        returns = dict(self._wanted.returns)
        names = list(names)
        listed = await self._rest.symbols(names)
        for name in names:
            if name not in listed:
                _log.error("symbol_not_listed", symbol=name, what="mend the symbols file")
                self._refused.add(name)
                continue
            newest_id = await self._rest.newest_id(name)
            missed = (newest_id or 0) - (self._carrier.next_id(name) or newest_id or 0)
            how = returns.get(name)
            if missed > RETURN_MAX_IDS and how is None:
                _log.error(
                    "symbol_was_away_for_long",
                    symbol=name,
                    missed_ids=missed,
                    what=f"k2 symbols add {name} --returns heal, or --returns gap",
                )
                self._refused.add(name)
                continue
            declare = how is Return.GAP
            self._carrier.add(listed[name], newest_id=newest_id, declare=declare)
            _log.info("symbol_added", symbol=name, newest_id=newest_id)

    async def _wait(self) -> None:
        if self._changed.is_set():
            return
        polls = self._file is not None or self._wanted.quotes
        try:
            async with asyncio.timeout(LOOK_EVERY_S if polls else None):
                await self._changed.wait()
        except TimeoutError:
            return


def _stamp(file: Path | None) -> tuple[int, int]:
    try:
        found = file.stat() if file is not None else None
    except OSError:
        found = None
    return (found.st_mtime_ns, found.st_ino) if found is not None else (0, 0)
