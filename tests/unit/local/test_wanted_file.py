import asyncio
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import pytest

from k2.errors import RetryError
from k2.local.venue import Venue, VenueKind
from k2.local.wanted_file import keep_symbols
from k2.market import Symbol
from k2.settings import Settings, SettingsError


class ListingRest:
    """An exchange that lists these."""

    listed: frozenset[str] = frozenset({"BTCUSDT", "ETHUSDT"})
    away = False
    asked: list[list[str]]

    opened: list[tuple[list[str], ssl.VerifyMode]]

    def __init__(self, urls: Sequence[str], *, tls: ssl.SSLContext, **_how: Any) -> None:
        self.opened.append((list(urls), tls.verify_mode))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exc: object) -> None: ...

    async def symbols(self, names: Sequence[str]) -> dict[str, Symbol]:
        self.asked.append(list(names))
        if self.away:
            raise RetryError("503")
        return {name: Symbol(name, name[:3], name[3:]) for name in names if name in self.listed}


@pytest.fixture(autouse=True)
def rest(monkeypatch: pytest.MonkeyPatch) -> type[ListingRest]:
    class Rest(ListingRest):
        asked: list[list[str]] = []  # noqa: RUF012 - one list for each test
        opened: list[tuple[list[str], ssl.VerifyMode]] = []  # noqa: RUF012 - as above

    monkeypatch.setattr("k2.ingestion.venue.RestClient", Rest)
    monkeypatch.delenv("BINANCE_SYMBOLS", raising=False)
    return Rest


def keep(
    state_dir: Path, *symbols: str, given: bool, file: Path | None = None, verify: bool = True
) -> Path:
    venue = Venue(VenueKind.BUILT_IN, "t", state_dir / "lake-simulated", state_dir, "")
    settings = Settings().model_copy(
        update={"state_dir": state_dir, "symbols_file": file, "tls_verify": verify}
    )
    return asyncio.run(
        keep_symbols(venue, settings, symbols, rest_urls=["http://x"], symbols_given=given)
    )


def test_what_is_given_is_kept_for_the_next_time(tmp_path: Path) -> None:
    path = keep(tmp_path, "BTCUSDT", "ETHUSDT", given=True)
    assert path == tmp_path / "symbols-lake-simulated.txt"
    assert path.read_text() == "BTCUSDT\nETHUSDT\n"
    keep(tmp_path, "BTCUSDT", given=False)
    assert path.read_text() == "BTCUSDT\nETHUSDT\n"


def test_a_name_the_exchange_does_not_list_is_refused_and_nothing_is_written(
    tmp_path: Path,
) -> None:
    with pytest.raises(SettingsError, match=r"does not list NOSUCH, named by --symbols; leave"):
        keep(tmp_path, "BTCUSDT", "NOSUCH", given=True)
    assert list(tmp_path.iterdir()) == []
    path = keep(tmp_path, "BTCUSDT", given=True)
    with pytest.raises(SettingsError, match="NOSUCH"):
        keep(tmp_path, "NOSUCH", given=True)
    assert path.read_text() == "BTCUSDT\n"


def test_the_variable_and_the_default_are_named_as_the_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SettingsError, match=r"list BNBUSDT, name others with --symbols"):
        keep(tmp_path, "BNBUSDT", given=False)
    monkeypatch.setenv("BINANCE_SYMBOLS", "BNBUSDT")
    with pytest.raises(SettingsError, match=r"list BNBUSDT, named by BINANCE_SYMBOLS"):
        keep(tmp_path, "BNBUSDT", given=False)


def test_one_that_was_recorded_last_time_may_have_been_delisted_since(
    tmp_path: Path, rest: type[ListingRest]
) -> None:
    (tmp_path / "symbols-lake-simulated.txt").write_text("OLDUSDT\nBTCUSDT\n")
    keep(tmp_path, "OLDUSDT", "ETHUSDT", given=True)
    assert rest.asked == [["ETHUSDT"]]


def test_an_exchange_that_is_away_leaves_the_question_to_the_capture(
    tmp_path: Path, rest: type[ListingRest]
) -> None:
    rest.away = True
    assert keep(tmp_path, "NOSUCH", given=True).read_text() == "NOSUCH\n"


def test_the_exchange_that_runs_beside_us_is_asked_and_believed_as_the_settings_say(
    tmp_path: Path, rest: type[ListingRest]
) -> None:
    keep(tmp_path, "BTCUSDT", given=True)
    keep(tmp_path, "ETHUSDT", given=True, verify=False)
    assert rest.opened == [(["http://x"], ssl.CERT_REQUIRED), (["http://x"], ssl.CERT_NONE)]


def test_an_operators_own_file_is_not_written(tmp_path: Path, rest: type[ListingRest]) -> None:
    own = tmp_path / "own.txt"
    assert keep(tmp_path, "NOSUCH", given=True, file=own) == own
    assert (own.exists(), rest.asked) == (False, [])
