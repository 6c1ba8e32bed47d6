import asyncio
from typing import Any, Self

import pytest

from k2.errors import StopError
from k2.ingestion import venue
from k2.ingestion.listing import UnlistedError, how_to_mend, refuse_unlisted, refuse_unlisted_yet
from k2.market import Symbol
from k2.market.wanted import parse_lines
from k2.settings import Settings
from unit.ingestion.shard_world import FakeRest

LISTED = {"BTCUSDT": Symbol("BTCUSDT", "BTC", "USDT")}


def test_a_name_nobody_lists_is_refused_by_name() -> None:
    with pytest.raises(UnlistedError, match=r"does not list NOPE, NOSUCH$") as caught:
        refuse_unlisted({"BTCUSDT", "NOSUCH", "NOPE"}, LISTED, recorded=(), taped=())
    assert caught.value.names == ["NOPE", "NOSUCH"]


def test_one_with_a_tape_was_delisted_and_the_others_go_on() -> None:
    refuse_unlisted({"BTCUSDT", "OLDUSDT"}, LISTED, recorded={"OLDUSDT"}, taped={"OLDUSDT"})
    with pytest.raises(StopError, match="none of the symbols"):
        refuse_unlisted({"OLDUSDT"}, {}, recorded=(), taped={"OLDUSDT"})


class OpenedRest(FakeRest):
    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exc: object) -> None: ...


def ask_yet(monkeypatch: pytest.MonkeyPatch, rest: OpenedRest, text: str) -> None:
    def opened(*_where: Any, **_how: Any) -> OpenedRest:
        return rest

    monkeypatch.setattr(venue, "RestClient", opened)
    rest.way_s = 0.0
    asyncio.run(refuse_unlisted_yet(Settings(), parse_lines(text)))


def test_before_there_is_a_tape_every_name_has_to_be_listed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rest = OpenedRest()
    rest.unlisted = {"NOSUCH"}
    with pytest.raises(UnlistedError, match="NOSUCH"):
        ask_yet(monkeypatch, rest, "BTCUSDT\nNOSUCH")
    ask_yet(monkeypatch, rest, "BTCUSDT")


def test_a_rest_that_is_away_is_asked_later_and_quotes_are_not_asked_about(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rest = OpenedRest()
    rest.unlisted, rest.failures = {"NOSUCH"}, 1
    ask_yet(monkeypatch, rest, "NOSUCH")
    assert rest.asked_symbols == [["NOSUCH"]]
    ask_yet(monkeypatch, rest, "all:USDT")
    assert len(rest.asked_symbols) == 1


def test_the_place_and_the_command_are_told() -> None:
    settings = Settings()
    assert "named by --symbols or BINANCE_SYMBOLS" in how_to_mend(settings, ["NOSUCH"])
    settings = settings.model_copy(update={"symbols_file": "var/symbols-lake.txt"})
    assert how_to_mend(settings, ["NOSUCH", "NOPE"]) == (
        "named in var/symbols-lake.txt; "
        "`k2 symbols remove NOPE NOSUCH --file var/symbols-lake.txt` takes it out"
    )
