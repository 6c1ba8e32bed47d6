"""Where one ``k2 up`` listens, and what it leaves for later commands."""

from pathlib import Path

import pytest

from k2.cli.session import session
from k2.local import ports
from k2.local.addresses import Addresses, write_session
from k2.local.up_options import UpOptions
from k2.settings import SettingsError, load_settings

OWN = "wss://stream.binance.com:9443/ws"


def _options(**given: object) -> UpOptions:
    settled = {
        "settings": load_settings(),
        "symbols_given": False,
        "kafka_port": None,
        "registry_port": None,
        "advertise": None,
        "advertised_port": None,
        "auto_ports": True,
        "stack_only": False,
        "exchange": "auto",
        "tape": None,
        "speed": "1",
        "rate": 100.0,
        "run_for_s": None,
        "observe": False,
    }
    return UpOptions(**(settled | given))  # type: ignore[arg-type]


def test_a_port_asked_for_by_number_is_given_to_nobody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ports, "_PICK_FROM", range(27_000, 27_008))
    monkeypatch.setattr(ports, "can_listen", lambda *_a, **_k: True)
    options = _options(kafka_port=27_001, registry_port=27_003, advertised_port=27_005)
    addresses = Addresses(options, tmp_path)
    found = addresses.services()
    taken = {addresses.exchange(), *(one.port for one in found.wanted())}
    assert taken == {27_000, 27_002, 27_004, 27_006, 27_007}


@pytest.mark.parametrize(
    "folder",
    [
        *("plain", "my dir #1", "a${HOME}b", "${:-x}", "it's", 'a "b"', "a\\nb", "# x"),
        *(" spaces ", "ünï", "a=b", "a$b", "new\nline"),
    ],
)
def test_later_commands_find_the_lake_whatever_its_folder_is_called(
    tmp_path: Path, folder: str
) -> None:
    lake, symbols = tmp_path / folder / "lake", tmp_path / folder / "symbols-lake.txt"
    write_session(tmp_path, {"K2_LAKE_DIR": str(lake), "K2_SYMBOLS_FILE": str(symbols)})
    settings = session({"state_dir": tmp_path})
    assert (settings.lake_path, settings.symbols_file) == (lake, symbols)


def test_what_needs_no_quotes_has_none(tmp_path: Path) -> None:
    write_session(tmp_path, {"BINANCE_WS_URL": "ws://127.0.0.1:1/ws", "BINANCE_SYMBOLS": "A,B"})
    assert (tmp_path / "k2.env").read_text().splitlines()[1:] == [
        "BINANCE_SYMBOLS=A,B",
        "BINANCE_WS_URL=ws://127.0.0.1:1/ws",
    ]


def test_the_second_leg_is_of_the_exchange_that_ran(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BINANCE_WS_URL_FALLBACK", "wss://stream.binance.com:443/ws")
    write_session(
        tmp_path, {"BINANCE_WS_URL": "ws://127.0.0.1:1/ws", "BINANCE_WS_URL_FALLBACK": ""}
    )
    built_in = session({"state_dir": tmp_path})
    assert set(built_in.leg_urls) == {"ws://127.0.0.1:1/ws"}

    both = {"BINANCE_WS_URL": "ws://a:1/ws", "BINANCE_WS_URL_FALLBACK": "ws://b:1/ws"}
    write_session(tmp_path, both)
    assert session({"state_dir": tmp_path}).leg_urls == ("ws://a:1/ws", "ws://b:1/ws")

    # Where both are of one exchange the environment has the word, as with every other setting.
    both = {"BINANCE_WS_URL": OWN, "BINANCE_WS_URL_FALLBACK": "wss://stream.binance.com:9444/ws"}
    write_session(tmp_path, both)
    assert session({"state_dir": tmp_path}).leg_urls == (OWN, "wss://stream.binance.com:443/ws")
    monkeypatch.setenv("BINANCE_WS_URL_FALLBACK", "ws://[")
    with pytest.raises(SettingsError, match=r"BINANCE_WS_URL_FALLBACK=.*expected an address"):
        session({"state_dir": tmp_path})

    monkeypatch.setenv("BINANCE_WS_URL", OWN)
    monkeypatch.setenv("BINANCE_WS_URL_FALLBACK", "ws://box:1/ws")
    with pytest.raises(SettingsError, match="ids of two must not mix"):
        session({"state_dir": tmp_path})
