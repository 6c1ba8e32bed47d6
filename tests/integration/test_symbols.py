"""Symbols change while the service runs: the others are not touched, a take-over keeps the set."""

from collections.abc import Callable

import pytest

from integration.harness import Process, Room, wait_for
from k2.ingestion.symbols_file import write_file
from k2.market.wanted import with_added, with_removed

pytestmark = pytest.mark.integration


def wants(room: Room, change: Callable[[str], str]) -> None:
    path = room.path / "symbols.txt"
    write_file(path, change(path.read_text() if path.exists() else ""))
    room.extra["K2_SYMBOLS_FILE"] = str(path)


def recorded(room: Room) -> set[str]:
    return set(room.topic_records())


def subscriptions(stream: Process) -> int:
    return len(stream.events("Connected"))


def test_a_symbol_comes_and_goes_without_a_restart(room: Room) -> None:
    room.exchange("--rate", "300")
    wants(room, lambda text: with_added(text, ["BTCUSDT", "ETHUSDT"], how=None))
    stream = room.stream()
    wait_for(lambda: recorded(room) == {"BTCUSDT", "ETHUSDT"}, what="the first symbols")
    wants(room, lambda text: with_added(text, ["PEPEUSDT"], how=None))
    wait_for(lambda: "PEPEUSDT" in recorded(room), what="the symbol that was added")
    wants(room, lambda text: with_removed(text, ["ETHUSDT"]))
    wait_for(lambda: stream.events("symbol_removed"), what="the symbol to be removed")
    left = wait_for(
        lambda: {s: r[-1]["source_sequence"] for s, r in room.topic_records().items()},
        what="records",
    )
    wait_for(
        lambda: room.topic_records()["BTCUSDT"][-1]["source_sequence"] > left["BTCUSDT"] + 50,
        what="trading to go on",
    )
    assert subscriptions(stream) == 2, "two legs, connected once"
    for symbol, records in room.topic_records().items():
        ids = [record["source_sequence"] for record in records]
        assert ids == list(range(ids[0], ids[-1] + 1)), symbol
    ended = room.topic_records()["ETHUSDT"][-1]["source_sequence"]
    assert room.newest_ids()["ETHUSDT"] > ended, "it trades on without us"
    # Whoever comes next, with whatever list, goes on with the set that is recorded.
    stream.kill()
    del room.extra["K2_SYMBOLS_FILE"]
    room.symbols = ("BTCUSDT",)
    successor = room.stream(name="successor")
    took = wait_for(lambda: successor.events("took_over"), what="the successor to write")
    assert took[0]["symbols"] == ["BTCUSDT", "PEPEUSDT"]
    room.symbols = ("BTCUSDT", "PEPEUSDT")
    newest = room.stop_trading()
    wait_for(
        lambda: all(
            room.topic_records()[s][-1]["source_sequence"] == newest[s] for s in room.symbols
        ),
        what="the tape to reach the newest ids",
    )
    for symbol in room.symbols:
        ids = [record["source_sequence"] for record in room.topic_records()[symbol]]
        assert ids == list(range(ids[0], newest[symbol] + 1)), symbol


def test_all_of_a_quote_asset_follows_the_listings(room: Room) -> None:
    room.exchange("--rate", "200")
    room.extra |= {"K2_LISTING_INTERVAL": "1", "BINANCE_SYMBOLS": "all:USDT"}
    stream = room.stream()
    wait_for(lambda: recorded(room) == set(room.symbols), what="everything that is listed")
    room.control("listings", {"add": "SOLUSDT"})
    wait_for(lambda: "SOLUSDT" in recorded(room), what="the new listing")
    room.control("listings", {"remove": "PEPEUSDT"})
    wait_for(lambda: stream.events("symbol_delisted"), what="the delisting to be noticed")
    assert stream.running


def test_a_broken_file_changes_nothing(room: Room) -> None:
    room.exchange("--rate", "200")
    wants(room, lambda text: with_added(text, ["BTCUSDT"], how=None))
    stream = room.stream()
    wait_for(lambda: recorded(room) == {"BTCUSDT"}, what="the symbol")
    wants(room, lambda _: "BTCUSDT ETHUSDT BNBUSDT\n")
    wait_for(lambda: stream.events("symbols_file_not_understood"), what="the complaint")
    wants(room, lambda _: "BTCUSDT\nETHUSDT\nNOSUCHUSDT\n")
    wait_for(lambda: "ETHUSDT" in recorded(room), what="the mended file")
    assert stream.events("symbol_not_listed")[0]["symbol"] == "NOSUCHUSDT"
