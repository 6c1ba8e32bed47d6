"""The trading floor: what is listed, and the tape its trading makes.

A shell round a generated or recorded tape that joins it to the listings and the ledger.
"""

import random
from collections.abc import Mapping
from typing import Literal

from k2.errors import RejectError, StopError
from k2.market import StreamKind
from k2.simulator.config import ExchangeConfig
from k2.simulator.generated import GeneratedTape, Tape
from k2.simulator.ledger import Ledger
from k2.simulator.listing import LISTINGS, Listing, select, with_status
from k2.simulator.matching import Market
from k2.simulator.recording import RecordingSummary, RecordingTape, play, read_lines, summarise
from k2.simulator.rows import TapeRow

Status = Literal["TRADING", "END_OF_DAY", "HALT", "BREAK", "CANCEL_ONLY"]


class TradingFloor:
    """Listings that change while the tape goes on.

    Raises:
        StopError: If the recording is damaged, or a symbol unknown to it or to us.
    """

    def __init__(self, config: ExchangeConfig) -> None:
        self._config = config
        self.recording: RecordingSummary | None = None
        if config.tape is not None:
            self.recording = summarise(config.tape)
        self.listings: dict[str, Listing] = self._listed()

    def open(self, ledger: Ledger) -> None:
        """Begin where the ledger ends.

        Raises:
            StopError: If the ledger holds another tape.
        """
        self._ledger = ledger
        self._generated: GeneratedTape | None = None
        self._tape: Tape = self._recorded() or self._generate()

    @property
    def finished(self) -> bool:
        """True when no row will ever follow."""
        return self._tape.finished

    def advance(self, *, start_us: int, end_us: int) -> list[TapeRow]:
        """Return the rows of the half-open wall-clock interval, in publishing order."""
        return self._tape.advance(start_us=start_us, end_us=end_us)

    def set_rate(self, rate: float) -> None:
        """Trade at this many aggregates per second over all symbols.

        Raises:
            RejectError: If a recording is played: it has its own pace.
        """
        self._invented().rate = rate

    def add(self, symbol: str) -> None:
        """List a built-in symbol; it trades at once, if it is one that trades.

        Raises:
            RejectError: If it is listed, is not built in, or a recording is played.
        """
        self._invented()
        if symbol in self.listings or symbol not in LISTINGS:
            raise RejectError(f"{symbol} is listed already, or not built in")
        self._list(LISTINGS[symbol])

    def remove(self, symbol: str) -> None:
        """Delist a symbol: it trades no more, and REST does not know it.

        Raises:
            RejectError: If it is not listed, or a recording is played.
        """
        self._check_listed(symbol)
        self._invented().stop(symbol)
        del self.listings[symbol]

    def change_status(self, statuses: Mapping[str, Status]) -> None:
        """Give symbols another status: only ``TRADING`` ones trade.

        Raises:
            RejectError: If one is not listed, or a recording is played; nothing has changed then.
        """
        for symbol in statuses:
            self._check_listed(symbol)
        self._invented()
        for symbol, status in statuses.items():
            if status != self.listings[symbol].status:
                self._list(with_status(self.listings[symbol], status))

    def _list(self, listing: Listing) -> None:
        self.listings[listing.name] = listing
        if listing.status == "TRADING":
            # One that never traded has no activity of its own.
            self._invented().start(self._market(listing), max(1, listing.activity))
        else:
            self._invented().stop(listing.name)

    def _check_listed(self, symbol: str) -> None:
        if symbol not in self.listings:
            raise RejectError(f"{symbol} is not listed")

    def _invented(self) -> GeneratedTape:
        if self._generated is None:
            raise RejectError("a recording is played: its symbols and its pace are what they were")
        return self._generated

    def _listed(self) -> dict[str, Listing]:
        names = self._config.symbols
        if self.recording is not None:
            names = tuple(s for s in self.recording.symbols if not names or s in names)
            if not names:
                held = " ".join(self.recording.symbols)
                raise StopError(f"the recording holds none of the symbols asked for, only {held}")
        try:
            return select(names)
        except ValueError as exc:
            raise StopError(str(exc)) from exc

    def _recorded(self) -> Tape | None:
        config = self._config
        if config.tape is None or self.recording is None:
            return None
        self._ledger.pin("tape", f"recording {self.recording.digest}")
        newest = {
            (symbol, kind): ids.last_id
            for symbol, kind in self._ledger.series()
            if (ids := self._ledger.range(symbol, kind)) is not None
        }
        rows = play(read_lines(config.tape))
        listed = (played for played in rows if played.row.symbol in self.listings)
        return RecordingTape(listed, speed=config.speed, newest=newest)

    def _generate(self) -> Tape:
        config = self._config
        self._ledger.pin("tape", "generated")
        markets = [
            (self._market(listing), listing.activity)
            for listing in self.listings.values()
            if listing.status == "TRADING"
        ]
        rng = random.Random(f"{config.seed}:arrivals")  # noqa: S311 a reproducible simulation
        self._generated = GeneratedTape(markets, rate=config.rate, rng=rng)
        return self._generated

    def _market(self, listing: Listing) -> Market:
        """Build a symbol's market so that it goes on where the ledger ends."""
        agg_ids = self._ledger.range(listing.name, StreamKind.AGG_TRADE)
        fill_ids = self._ledger.range(listing.name, StreamKind.TRADE)
        next_agg_id = listing.first_agg_id if agg_ids is None else agg_ids.last_id + 1
        last = (
            None
            if agg_ids is None
            else self._ledger.rows(listing.name, StreamKind.AGG_TRADE, agg_ids.last_id, 1)[0]
        )
        return Market(
            listing,
            rng=random.Random(f"{self._config.seed}:{listing.name}:{next_agg_id}"),  # noqa: S311 a reproducible simulation
            next_agg_id=next_agg_id,
            next_fill_id=listing.first_fill_id if fill_ids is None else fill_ids.last_id + 1,
            # A void row has no price to go on from.
            last_price=None if last is None or last.first_trade_id < 0 else last.price,
            last_trade_ts_us=0 if last is None else last.trade_ts_us,
        )
