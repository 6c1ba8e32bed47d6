import pytest
from pyiceberg.utils.config import Config

from k2.cli import app as app_module
from k2.cli import main
from k2.cli.output import print_json
from k2.cli.session import split_symbols
from k2.errors import RetryError
from k2.ingestion import gap_list
from k2.market import IdRange
from k2.settings import Settings

COMMANDS = [
    *("up", "down", "stream", "archive", "exchange", "verify", "query", "tail"),
    *("gaps", "backfill", "schema register", "schema check", "schema show"),
    *("positions show", "positions rebuild"),
    *("dlq list", "dlq show", "dlq replay"),
]


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """Run one command line; return its exit code."""
    monkeypatch.setattr("sys.argv", ["k2", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert isinstance(ended.value.code, int)
    return ended.value.code


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_says_what_it_does(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    assert run(monkeypatch, *command.split(), "--help") == 0
    assert f"Usage: k2 {command}" in capsys.readouterr().out


def test_every_command_is_in_the_overview(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "--help") == 0
    overview = capsys.readouterr().out
    assert all(command.split()[0] in overview for command in COMMANDS)
    assert app_module.app.name == ("k2",)


@pytest.mark.parametrize(
    "words",
    [
        ["unheard-of"],
        ["gaps", "--unheard-of"],
        ["query", ""],
        ["positions", "rebuild"],
        ["backfill", "--symbol", "X"],
        ["backfill", "--symbol", "X", "--from-id", "1", "--since", "2026-01-01"],
        ["backfill", "--symbol", "X", "--from-id", "-1"],
        ["backfill", "--symbol", "X", "--since", "yesterday"],
        ["up", "--for", "never"],
        ["dlq", "list", "--since", "yesterday"],
        ["dlq", "show", "--limit", "0"],
    ],
)
def test_what_cannot_be_meant_is_exit_2_and_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    assert run(monkeypatch, *words) == 2
    assert capsys.readouterr().err.startswith("k2: ")


def test_a_failure_is_exit_1_and_its_reason(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_settings: Settings, **_which: object) -> None:
        raise RetryError("Kafka is away")

    monkeypatch.setattr(gap_list, "list_gaps", fail)
    assert run(monkeypatch, "gaps") == 1
    assert capsys.readouterr().err == "k2: Kafka is away\n"


def test_symbols_come_by_spaces_or_commas_in_any_case() -> None:
    assert split_symbols(["btcusdt,ETHUSDT", "BNBUSDT", ","]) == {"BTCUSDT", "ETHUSDT", "BNBUSDT"}
    assert split_symbols(None) == set()


def test_structs_print_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    print_json(IdRange(1, 2), indent=False)
    assert capsys.readouterr().out == '{"first_id":1,"last_id":2}\n'


@pytest.mark.parametrize(
    ("words", "uri"),
    [
        (["verify"], ""),
        (["query", "SELECT 1"], "postgresql+nosuchdriver://host/db"),
        (["verify", "--json"], "nosuch://host"),
    ],
)
def test_a_catalog_that_cannot_be_used_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], uri: str
) -> None:
    monkeypatch.setenv("K2_LAKE_CATALOG", "nosuch")
    if uri:
        monkeypatch.setattr(Config, "get_catalog_config", lambda *_a: {"type": "sql", "uri": uri})
    assert run(monkeypatch, *words) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("k2: catalog nosuch cannot be used: ")
    assert told.err.count("\n") == 1
