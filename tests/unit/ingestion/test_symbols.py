import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from k2.ingestion.symbols import RETURN_MAX_IDS, SymbolWatch
from k2.ingestion.symbols_file import read_wanted, write_file
from k2.market import Symbol
from k2.market.wanted import Wanted, parse_lines
from unit.ingestion.shard_world import FakeRest, beside, until, virtual_host, virtually

LISTING_EVERY_S = 3600.0


class Capture:
    """A capture that records BTCUSDT and ETHUSDT, and what it is told to add and remove."""

    def __init__(
        self, file: Path | None = None, *, text: str = "BTCUSDT\nETHUSDT\n", writes: bool = True
    ) -> None:
        self.file = file
        self.now: set[str] = {"BTCUSDT", "ETHUSDT"}
        self.in_log: set[str] = {"BTCUSDT", "ETHUSDT"}
        self.stands_at: dict[str, int] = {}
        self.told: list[str] = []
        self.writes = writes
        self.rest = FakeRest()
        self.rest.newest = 5_000_000
        if file is not None:
            write_file(file, text)
        wanted: Wanted = parse_lines(text) if file is None else read_wanted(file)
        self.watch = SymbolWatch(
            self,
            self.rest,
            wanted=wanted,
            file=file,
            listing_every_s=LISTING_EVERY_S,
            host=virtual_host(),
        )

    # A carrier.

    def carried(self) -> set[str]:
        return set(self.now)

    def recorded(self) -> set[str]:
        return set(self.in_log)

    def next_id(self, symbol: str) -> int | None:
        return self.stands_at.get(symbol)

    def add(self, listed: Symbol, *, newest_id: int | None, declare: bool) -> None:
        self.told.append(f"+{listed.name} {newest_id}{' declared' if declare else ''}")
        self.now.add(listed.name)
        if self.writes:
            self._record(lambda: self.in_log.add(listed.name))

    def remove(self, symbol: str) -> None:
        self.told.append(f"-{symbol}")
        self.now.discard(symbol)
        if self.writes:
            self._record(lambda: self.in_log.discard(symbol))

    def _record(self, change: Any) -> None:
        def committed() -> None:
            change()
            self.watch.look()

        asyncio.get_running_loop().call_later(0.3, committed)

    # Playing.

    def write(self, text: str) -> None:
        assert self.file is not None
        write_file(self.file, text)

    def play(self, story: Coroutine[Any, Any, None]) -> Coroutine[Any, Any, None]:
        return beside(self.watch.run(), story)


def test_a_file_that_does_not_change_changes_nothing(tmp_path: Path) -> None:
    async def tell() -> None:
        capture = Capture(tmp_path / "symbols")
        await capture.play(asyncio.sleep(600))
        assert (capture.told, capture.rest.asked_symbols) == ([], [])

    virtually(tell())


def test_a_name_added_is_recorded_from_rests_newest_id_on(tmp_path: Path) -> None:
    async def tell() -> None:
        capture = Capture(tmp_path / "symbols")

        async def story() -> None:
            await asyncio.sleep(10)
            capture.write("BTCUSDT\nETHUSDT\nADAUSDT\nSOLUSDT\n")
            await until(lambda: len(capture.told) == 2, within_s=3)
            await asyncio.sleep(60)

        await capture.play(story())
        assert capture.told == ["+ADAUSDT 5000000", "+SOLUSDT 5000000"]
        assert capture.rest.asked_symbols == [["ADAUSDT", "SOLUSDT"]]

    virtually(tell())


def test_a_line_that_is_merely_gone_changes_nothing(tmp_path: Path) -> None:
    async def tell() -> None:
        capture = Capture(tmp_path / "symbols")

        async def story() -> None:
            capture.write("BTCUSDT\n")
            await asyncio.sleep(60)

        await capture.play(story())
        assert capture.told == []

    virtually(tell())


def test_leaving_is_explicit_and_happens_once(tmp_path: Path) -> None:
    async def tell() -> None:
        capture = Capture(tmp_path / "symbols")

        async def story() -> None:
            capture.write("BTCUSDT\n-ETHUSDT\n")
            await until(lambda: capture.told != [], within_s=3)
            await asyncio.sleep(60)
            capture.watch.look()
            await asyncio.sleep(60)

        await capture.play(story())
        assert capture.told == ["-ETHUSDT"]
        assert capture.in_log == {"BTCUSDT"}

    virtually(tell())


def test_what_the_writer_has_added_is_carried_by_a_standby_without_a_file() -> None:
    async def tell() -> None:
        capture = Capture(writes=False)

        async def story() -> None:
            await asyncio.sleep(10)
            capture.in_log.add("ADAUSDT")
            capture.watch.look()
            await until(lambda: capture.told != [], within_s=1)

        await capture.play(story())
        assert capture.told == ["+ADAUSDT 5000000"]

    virtually(tell())


def test_a_symbol_the_exchange_does_not_list_is_refused_and_the_others_go_on(
    tmp_path: Path,
) -> None:
    async def tell() -> None:
        capture = Capture(tmp_path / "symbols")
        capture.rest.unlisted = {"NOUSDT"}

        async def story() -> None:
            capture.write("NOUSDT\nADAUSDT\n")
            await until(lambda: capture.told == ["+ADAUSDT 5000000"], within_s=3)
            await asyncio.sleep(600)
            assert len(capture.rest.asked_symbols) == 1, "it is not asked about again and again"
            capture.rest.unlisted = set()
            capture.write("NOUSDT\nADAUSDT \n")
            await until(lambda: "+NOUSDT 5000000" in capture.told, within_s=3)

        await capture.play(story())

    virtually(tell())


def test_a_rest_that_is_away_is_asked_again(tmp_path: Path) -> None:
    async def tell() -> None:
        capture = Capture(tmp_path / "symbols")
        capture.rest.failures = 4

        async def story() -> None:
            capture.write("ADAUSDT\nSOLUSDT\n")
            await until(lambda: len(capture.told) == 2, within_s=20)

        await capture.play(story())
        assert sorted(capture.told) == ["+ADAUSDT 5000000", "+SOLUSDT 5000000"]

    virtually(tell())


def test_a_return_after_a_long_absence_waits_for_the_operators_choice(tmp_path: Path) -> None:
    async def tell() -> None:
        capture = Capture(tmp_path / "symbols")
        capture.stands_at = {
            "ADAUSDT": 5_000_000 - RETURN_MAX_IDS - 1,
            "BNBUSDT": 5_000_000 - RETURN_MAX_IDS - 1,
            "SOLUSDT": 5_000_000 - RETURN_MAX_IDS,
        }

        async def story() -> None:
            capture.write("ADAUSDT\nBNBUSDT\nSOLUSDT\n")
            await until(lambda: capture.told != [], within_s=3)
            await asyncio.sleep(600)
            assert capture.told == ["+SOLUSDT 5000000"]
            capture.write("ADAUSDT heal\nBNBUSDT gap\nSOLUSDT\n")
            await until(lambda: len(capture.told) == 3, within_s=3)

        await capture.play(story())
        assert capture.told[1:] == ["+ADAUSDT 5000000", "+BNBUSDT 5000000 declared"]

    virtually(tell())


def test_a_file_that_cannot_be_understood_or_is_gone_leaves_the_old_set(tmp_path: Path) -> None:
    async def tell() -> None:
        capture = Capture(tmp_path / "symbols", text="BTCUSDT\nETHUSDT\n-XRPUSDT\n")
        assert capture.file is not None

        async def story() -> None:
            assert capture.file is not None
            for text in ("-BTCUSDT\nADA USDT\n", "-BTCUSDT\nBTC/USDT\n"):
                capture.write(text)
                await asyncio.sleep(5)
            capture.file.write_bytes(b"-BTCUSDT\n\xff\n")
            await asyncio.sleep(5)
            capture.file.unlink()
            await asyncio.sleep(5)
            assert capture.told == []
            capture.in_log.add("XRPUSDT")  # the old set goes on to count
            capture.watch.look()
            await until(lambda: capture.told == ["-XRPUSDT"], within_s=3)
            capture.write("-BTCUSDT\n")
            await until(lambda: capture.told == ["-XRPUSDT", "-BTCUSDT"], within_s=3)

        await capture.play(story())

    virtually(tell())


# Listings.


def test_new_listings_are_recorded_at_the_next_look() -> None:
    async def tell() -> None:
        capture = Capture(text="all:USDT\n-XRPUSDT\n")
        capture.rest.trading = {"BTCUSDT", "ETHUSDT"}

        async def story() -> None:
            await asyncio.sleep(1.5 * LISTING_EVERY_S)
            capture.rest.trading |= {"NEWUSDT", "XRPUSDT", "NEWBTC"}
            await asyncio.sleep(0.4 * LISTING_EVERY_S)
            assert capture.told == []
            await until(lambda: capture.told != [], within_s=0.2 * LISTING_EVERY_S)

        await capture.play(story())
        assert capture.told == ["+NEWUSDT 5000000"]

    virtually(tell())


def test_a_quote_asset_new_in_the_file_is_looked_up_at_once(tmp_path: Path) -> None:
    async def tell() -> None:
        capture = Capture(tmp_path / "symbols")
        capture.rest.trading = {"BTCUSDT", "ETHUSDT", "BTCUSDC"}

        async def story() -> None:
            await asyncio.sleep(10)
            capture.write("BTCUSDT\nall:USDC\n")
            await until(lambda: capture.told == ["+BTCUSDC 5000000"], within_s=3)

        await capture.play(story())

    virtually(tell())


def test_a_halted_symbol_stays_recorded_and_a_new_one_is_recorded_once_it_trades() -> None:
    async def tell() -> None:
        capture = Capture(text="all:USDT\n")
        capture.rest.trading = {"BTCUSDT", "ETHUSDT"}

        async def story() -> None:
            await asyncio.sleep(1.5 * LISTING_EVERY_S)
            capture.rest.trading = set()  # maintenance: exchangeInfo lists them all, as BREAK
            await asyncio.sleep(3 * LISTING_EVERY_S)
            capture.watch.look()
            await asyncio.sleep(3 * LISTING_EVERY_S)
            assert capture.told == []
            assert len(capture.rest.asked_symbols) == 6, "only whether they are listed, at a look"
            capture.rest.trading = {"BTCUSDT", "ETHUSDT", "NEWUSDT"}
            await asyncio.sleep(LISTING_EVERY_S)
            assert capture.told == ["+NEWUSDT 5000000"]

        await capture.play(story())

    virtually(tell())


def test_a_delisted_symbol_leaves_and_stays_away_until_it_trades_again() -> None:
    async def tell() -> None:
        capture = Capture(text="all:USDT\nETHUSDT\n")
        capture.rest.trading = {"BTCUSDT", "ETHUSDT"}

        async def story() -> None:
            await asyncio.sleep(1.5 * LISTING_EVERY_S)
            capture.rest.trading = set()  # halted first, as delistings go
            await asyncio.sleep(LISTING_EVERY_S)
            assert capture.told == []
            capture.rest.unlisted = {"BTCUSDT", "ETHUSDT"}
            await asyncio.sleep(3 * LISTING_EVERY_S)
            assert capture.told == ["-BTCUSDT"], "a name of its own line is the operator's"
            capture.rest.unlisted = set()
            await asyncio.sleep(LISTING_EVERY_S)
            assert capture.told == ["-BTCUSDT"], "listed anew, and halted"
            capture.rest.trading = {"BTCUSDT"}
            await asyncio.sleep(LISTING_EVERY_S)
            assert capture.told == ["-BTCUSDT", "+BTCUSDT 5000000"]

        await capture.play(story())

    virtually(tell())


def test_a_rest_that_is_away_delists_nothing() -> None:
    async def tell() -> None:
        capture = Capture(text="all:USDT\n")
        capture.rest.trading = {"BTCUSDT", "ETHUSDT"}

        async def story() -> None:
            await asyncio.sleep(1.5 * LISTING_EVERY_S)
            capture.rest.trading, capture.rest.unlisted = {"ETHUSDT"}, {"BTCUSDT"}
            capture.rest.away_for_symbols = True
            await asyncio.sleep(LISTING_EVERY_S)
            assert capture.told == []
            capture.rest.away_for_symbols = False
            await asyncio.sleep(LISTING_EVERY_S)
            assert capture.told == ["-BTCUSDT"]

        await capture.play(story())

    virtually(tell())


def test_a_listing_without_any_of_the_symbols_is_not_believed() -> None:
    async def tell() -> None:
        capture = Capture(text="all:USDT\n")
        capture.rest.trading = {"BTCUSDT", "ETHUSDT"}

        async def story() -> None:
            await asyncio.sleep(1.5 * LISTING_EVERY_S)
            capture.rest.trading, capture.rest.unlisted = set(), {"BTCUSDT", "ETHUSDT"}
            await asyncio.sleep(3 * LISTING_EVERY_S)
            assert capture.told == []
            capture.rest.trading, capture.rest.unlisted = {"ETHUSDT"}, {"BTCUSDT"}
            await asyncio.sleep(LISTING_EVERY_S)
            assert capture.told == ["-BTCUSDT"]

        await capture.play(story())

    virtually(tell())


def test_so_it_does_with_a_standby_before_the_writer_has_noticed() -> None:
    async def tell() -> None:
        capture = Capture(text="all:USDT\n", writes=False)
        capture.rest.trading = {"BTCUSDT", "ETHUSDT"}

        async def story() -> None:
            await asyncio.sleep(1.5 * LISTING_EVERY_S)
            capture.rest.trading, capture.rest.unlisted = {"ETHUSDT"}, {"BTCUSDT"}
            await asyncio.sleep(LISTING_EVERY_S)
            capture.watch.look()
            await asyncio.sleep(60)
            assert capture.told == ["-BTCUSDT"]

        await capture.play(story())

    virtually(tell())


def test_a_standby_drops_what_the_writer_has_recorded_as_left() -> None:
    async def tell() -> None:
        # Its own list, given at the start, still names it: it was given before it left.
        capture = Capture(text="BTCUSDT\nETHUSDT\n", writes=False)

        async def story() -> None:
            await asyncio.sleep(2)
            capture.in_log.discard("ETHUSDT")
            capture.watch.look()
            await asyncio.sleep(5)
            capture.watch.look()
            await asyncio.sleep(5)
            assert capture.told == ["-ETHUSDT"]

        await capture.play(story())

    virtually(tell())
