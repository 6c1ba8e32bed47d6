"""``k2 symbols``: what is refused, what is said, what becomes of the file."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from k2.cli.output import Output
from k2.cli.symbols import add, list_symbols, remove
from k2.errors import RetryError
from k2.ingestion import listing, positions_look
from k2.kafka.position import Identity, ShardRecord
from k2.settings import SettingsError

JSON = Output(json=True)


class World:
    """An exchange that lists some symbols, and a Kafka in which some are recorded."""

    listed: set[str] | None = {"BTCUSDT", "ETHUSDT", "SOLUSDT"}  # noqa: RUF012 - replaced, not changed
    recorded: list[str] | None = ["BTCUSDT", "ETHUSDT"]  # noqa: RUF012

    def unlisted(self, _settings: object, names: list[str]) -> list[str] | None:
        return None if self.listed is None else sorted(set(names) - self.listed)

    def room(self, _settings: object) -> Any:
        if self.recorded is None:
            raise RetryError("nobody listens")
        identity = Identity("BINANCE", "production", "aggTrade", {}, 1, self.recorded)
        return SimpleNamespace(partitions=1, record=lambda _shard: ShardRecord(identity, None))


@pytest.fixture(autouse=True)
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()
    monkeypatch.setattr(listing, "unlisted", made.unlisted)
    monkeypatch.setattr(positions_look, "find_room", made.room)
    return made


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "symbols.txt"
    path.write_text("BTCUSDT\n")
    return path


def test_a_symbol_the_exchange_lists_is_added(file: Path) -> None:
    assert add(["solusdt,ETHUSDT"], file=file) == 0
    assert file.read_text() == "BTCUSDT\nETHUSDT\nSOLUSDT\n"


def test_one_it_does_not_list_is_refused_and_the_file_stays(file: Path) -> None:
    with pytest.raises(SettingsError, match="NAMES: the exchange does not list NOPEUSDT"):
        add(["SOLUSDT", "NOPEUSDT"], file=file)
    assert file.read_text() == "BTCUSDT\n"
    assert add(["all:USDC"], file=file) == 0


def test_an_exchange_that_does_not_say_is_remarked_on(
    file: Path, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    world.listed = None
    assert add(["NOPEUSDT"], file=file, output=JSON) == 0
    told = capsys.readouterr()
    assert json.loads(told.out)["names"] == ["BTCUSDT", "NOPEUSDT"]
    assert "does not say whether it lists NOPEUSDT" in told.err


@pytest.mark.parametrize("command", [add, remove])
def test_what_cannot_be_a_symbol_is_named_as_the_argument_it_is(file: Path, command: Any) -> None:
    with pytest.raises(SettingsError, match=r"NAMES 'B@D': expected a symbol such as BTCUSDT"):
        command(["b@d"], file=file)
    assert file.read_text() == "BTCUSDT\n"


def test_what_is_neither_wanted_nor_recorded_cannot_be_removed(file: Path, world: World) -> None:
    with pytest.raises(SettingsError, match=r"NAMES: SOLUSDT is neither in .* nor recorded"):
        remove(["SOLUSDT"], file=file)
    assert file.read_text() == "BTCUSDT\n"
    assert remove(["ETHUSDT"], file=file) == 0  # recorded, though the file does not name it
    assert file.read_text() == "BTCUSDT\n-ETHUSDT\n"
    world.recorded = []
    assert remove(["ETHUSDT"], file=file) == 0  # again is once
    file.write_text("all:USDT\n")
    assert remove(["SOLUSDT"], file=file) == 0  # one of those


def test_without_kafka_a_removal_is_written_and_remarked_on(
    file: Path, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    world.recorded = None
    assert remove(["SOLUSDT"], file=file) == 0
    assert file.read_text() == "BTCUSDT\n-SOLUSDT\n"
    assert "does not say whether SOLUSDT is recorded" in capsys.readouterr().err


def test_the_last_symbol_stays_and_the_way_out_is_told(file: Path) -> None:
    with pytest.raises(SettingsError, match="add another first, `k2 symbols add BTCUSDT --file"):
        remove(["BTCUSDT"], file=file)
    assert file.read_text() == "BTCUSDT\n"


def test_the_list_says_why_something_is_not_recorded(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text("BTCUSDT\nNOPEUSDT\nSOLUSDT\n")
    assert list_symbols(file=file, output=JSON) == 0
    told = {one["symbol"]: one for one in json.loads(capsys.readouterr().out)}
    assert told["NOPEUSDT"]["note"] == "the exchange does not list it"
    assert told["SOLUSDT"]["note"] == "no `k2 stream` has taken it up"
    assert (told["BTCUSDT"]["recorded"], told["BTCUSDT"]["note"]) == (True, "")


def test_without_kafka_the_file_is_shown_and_the_exit_is_1(
    file: Path, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    world.recorded = None
    assert list_symbols(file=file) == 1
    told = capsys.readouterr()
    assert "BTCUSDT" in told.out
    assert "what is recorded is unknown: nobody listens" in told.err


def test_without_a_file_the_state_directory_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"nothing of `k2 up` is in .*--state-dir"):
        add(["BTCUSDT"], state_dir=tmp_path)
