import os
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from k2.market import StreamKind
from k2.settings import Settings, SettingsError, load_settings, setting_rows

SECOND = "wss://data-stream.binance.vision/ws"

# Variable, a value, the field it sets, what the field then is (contract R050-R067).
VARIABLES: list[tuple[str, str, str, Any]] = [
    ("BINANCE_WS_URL", "ws://box:9443/stream", "ws_url", "ws://box:9443/stream"),
    ("BINANCE_REST_URL", "http://a:1, https://b", "rest_urls", ("http://a:1", "https://b")),
    ("BINANCE_SYMBOLS", "btcusdt, ETHUSDT btcusdt", "symbols", ("BTCUSDT", "ETHUSDT")),
    ("BINANCE_STREAM", "trade", "stream", StreamKind.TRADE),
    ("BINANCE_RECONNECT_DELAY_MIN", "0.5", "reconnect_delay_min_s", 0.5),
    ("BINANCE_RECONNECT_DELAY_MAX", "120", "reconnect_delay_max_s", 120.0),
    ("BINANCE_HEARTBEAT_INTERVAL", "0", "heartbeat_interval_s", 0.0),
    ("BINANCE_STALE_TIMEOUT", "0", "stale_after_s", 0.0),
    ("BINANCE_BATCH_SIZE", "100", "batch_size", 100),
    ("BINANCE_BATCH_TIMEOUT", "1.0", "batch_timeout_s", 1.0),
    ("KAFKA_BOOTSTRAP", "kafka:9092,kafka:29092", "kafka_bootstrap", "kafka:9092,kafka:29092"),
    ("KAFKA_TOPIC_PREFIX", "scratch.trades", "topic_prefix", "scratch.trades"),
    ("SCHEMA_REGISTRY_URL", "http://r:8081/", "schema_registry_url", "http://r:8081"),
    ("K2_HEAL_WAIT_MAX", "5", "heal_wait_max_s", 5.0),
    ("K2_STATE_DIR", "elsewhere", "state_dir", Path("elsewhere")),
    ("K2_LOG_FILE", "logs/x.log", "log_file", Path("logs/x.log")),
    ("K2_METRICS_PORT", "9092", "metrics_port", 9092),
    ("K2_DLQ_DIR", "letters", "dead_letter_dir", Path("letters")),
    ("K2_DLQ_FILE_BYTES", "1048576", "dead_letter_file_bytes", 1 << 20),
    ("K2_DLQ_DIR_BYTES", "2097152", "dead_letter_dir_bytes", 2 << 20),
    ("K2_DLQ_FSYNC", "each", "dead_letter_fsync", "each"),
    ("K2_LOG_LEVEL", "DEBUG", "log_level", "DEBUG"),
    ("K2_SHARDS", "4", "shards", 4),
    ("K2_LAKE_DIR", "lake", "lake_path", Path("lake")),
    ("BINANCE_WS_URL_FALLBACK", "wss://data-stream.binance.vision/ws/", "ws_url_fallback", SECOND),
    ("BINANCE_LEGS", "1", "legs", 1),
    ("BINANCE_CONNECTION_AGE_MAX", "82800", "connection_age_max_s", 82_800.0),
    ("BINANCE_ADDRESS_SHARE", "0.25", "address_share", 0.25),
    ("K2_ROLE", "observer", "role", "observer"),
    ("K2_SYMBOLS_FILE", "symbols.txt", "symbols_file", Path("symbols.txt")),
    ("K2_LISTING_INTERVAL", "600", "listing_every_s", 600.0),
    ("K2_HEALTH_PORT", "0", "health_port", 0),
    ("K2_ARCHIVE_HEALTH_PORT", "0", "archive_health_port", 0),
]


def test_without_anything_set_the_runbooks_defaults_hold() -> None:
    settings = load_settings()
    assert settings.ws_url == "wss://stream.binance.com:9443/ws"
    assert settings.rest_urls == ("https://data-api.binance.vision", "https://api.binance.com")
    assert settings.symbols == ("BTCUSDT", "ETHUSDT", "BNBUSDT")
    assert settings.stream is StreamKind.AGG_TRADE
    assert settings.kafka_bootstrap == "localhost:9092"
    assert settings.topic_prefix == "market.crypto.trades"
    assert settings.schema_registry_url == "http://localhost:8081"
    assert (settings.reconnect_delay_min_s, settings.reconnect_delay_max_s) == (1, 60)
    assert settings.heartbeat_interval_s == 180
    assert (settings.batch_size, settings.batch_timeout_s) == (10_000, 0.05)
    assert (settings.heal_wait_max_s, settings.state_dir) == (60, Path("var"))
    assert settings.lake_path == Path("var/lake")
    assert (settings.metrics_port, settings.archive_metrics_port) == (9091, 9095)
    assert (settings.health_port, settings.role, settings.symbols_file) == (8001, "auto", None)
    assert (settings.legs, settings.connection_age_max_s) == (2, 4 * 3600)
    assert (settings.address_share, settings.listing_every_s) == (0.5, 3600)
    assert settings.leg_urls == (settings.ws_url, SECOND)


@pytest.mark.parametrize(("variable", "text", "field", "value"), VARIABLES)
def test_each_variable_of_the_contract_is_read(
    monkeypatch: pytest.MonkeyPatch, variable: str, text: str, field: str, value: Any
) -> None:
    monkeypatch.setenv(variable, text)
    assert getattr(load_settings(), field) == value


def test_command_line_wins_over_environment_over_file_over_default(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "k2.env"
    file.write_text("KAFKA_BOOTSTRAP=file:1\nBINANCE_SYMBOLS=FILEUSDT\nK2_SHARDS=3\n")
    monkeypatch.setenv("KAFKA_BOOTSTRAP", "env:2")
    monkeypatch.setenv("BINANCE_SYMBOLS", "ENVUSDT")
    overrides = {"kafka_bootstrap": "cli:3", "symbols": None}
    settings = load_settings(overrides, env_file=file)
    assert settings.kafka_bootstrap == "cli:3"
    assert settings.symbols == ("ENVUSDT",)
    assert settings.shards == 3
    assert settings.topic_prefix == "market.crypto.trades"


def test_symbols_may_be_separated_by_spaces_or_commas() -> None:
    for given in (["BTCUSDT", "ETHUSDT"], ["btcusdt,ethusdt"], ["BTCUSDT,", "ETHUSDT"]):
        assert load_settings({"symbols": given}).symbols == ("BTCUSDT", "ETHUSDT")


@pytest.mark.parametrize("name", ["K2_SYMBOL", "BINANCE_SYMBOLZ", "K2_ROLES"])
def test_an_unknown_name_with_our_prefix_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    file = tmp_path / "k2.env"
    file.write_text(f"{name}=x\nOTHER=y\n")
    with pytest.raises(SettingsError, match=f"unknown variable {name}: k2 knows .*BINANCE_SYMBOLS"):
        load_settings(env_file=file)
    monkeypatch.setenv(name, "x")
    with pytest.raises(SettingsError, match=f"unknown variable {name}"):
        load_settings()


def test_names_of_others_and_of_a_deployment_are_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("K2_IMAGE_TAG", "K2_CACHE_DIR", "K2_MAVEN_MIRROR", "KAFKA_OPTS"):
        monkeypatch.setenv(name, "x")
    load_settings()


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("BINANCE_WS_URL", "https://stream.binance.com"),
        ("BINANCE_WS_URL", "wss://"),
        ("BINANCE_WS_URL", "wss://host:port/ws"),
        ("BINANCE_REST_URL", "ftp://x"),
        ("BINANCE_REST_URL", ""),
        ("BINANCE_SYMBOLS", ""),
        ("BINANCE_SYMBOLS", "BTC/USDT"),
        ("BINANCE_SYMBOLS", "X" * 65),
        ("BINANCE_STREAM", "kline"),
        ("BINANCE_RECONNECT_DELAY_MIN", "0"),
        ("BINANCE_RECONNECT_DELAY_MAX", "-1"),
        ("BINANCE_RECONNECT_DELAY_MAX", "nan"),
        ("BINANCE_HEARTBEAT_INTERVAL", "inf"),
        ("BINANCE_BATCH_SIZE", "0"),
        ("BINANCE_BATCH_SIZE", "many"),
        ("BINANCE_BATCH_TIMEOUT", "11"),
        ("KAFKA_BOOTSTRAP", "kafka"),
        ("KAFKA_BOOTSTRAP", "kafka:0"),
        ("KAFKA_BOOTSTRAP", ""),
        ("KAFKA_TOPIC_PREFIX", "a b"),
        ("SCHEMA_REGISTRY_URL", "localhost:8081"),
        ("SCHEMA_REGISTRY_URL", "http://localhost:99999"),
        ("K2_SHARDS", "0"),
        ("K2_METRICS_PORT", "65536"),
        ("K2_LOG_LEVEL", "chatty"),
        ("K2_LAKE_CATALOG", "../x"),
        ("K2_FLUSH_AGE", "0"),
        ("BINANCE_WS_URL_FALLBACK", "https://data-stream.binance.vision"),
        ("BINANCE_LEGS", "0"),
        ("BINANCE_LEGS", "3"),
        ("BINANCE_CONNECTION_AGE_MAX", "0"),
        ("BINANCE_CONNECTION_AGE_MAX", "86400"),
        ("BINANCE_ADDRESS_SHARE", "0"),
        ("BINANCE_ADDRESS_SHARE", "0.001"),
        ("BINANCE_ADDRESS_SHARE", "1.5"),
        ("BINANCE_SYMBOLS", "all:"),
        ("BINANCE_SYMBOLS", "-BTCUSDT"),
        ("K2_ROLE", "writer"),
        ("K2_LISTING_INTERVAL", "0"),
        ("K2_HEALTH_PORT", "65536"),
    ],
)
def test_a_value_that_cannot_be_names_variable_value_and_expectation(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    text = str(caught.value)
    assert text.startswith(f"{variable}=")
    assert "expected " in text
    assert len(text.split("expected ")[1]) > 5
    for part in value.split("," if variable == "KAFKA_BOOTSTRAP" else " "):
        assert part in text


def test_every_problem_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("K2_SHARDS", "0")
    monkeypatch.setenv("BINANCE_STREAM", "kline")
    with pytest.raises(SettingsError, match=r"BINANCE_STREAM.*; K2_SHARDS"):
        load_settings()


def test_the_smaller_delay_must_be_the_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BINANCE_RECONNECT_DELAY_MIN", "61")
    with pytest.raises(SettingsError, match=r"BINANCE_RECONNECT_DELAY_MIN=61: expected at most"):
        load_settings()


@pytest.mark.parametrize("text", ["off", ""])
def test_the_log_file_can_be_turned_off(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str
) -> None:
    assert load_settings().log_file is None
    file = tmp_path / "k2.env"
    file.write_text(f"K2_LOG_FILE={text}\n")
    assert load_settings(env_file=file).log_file == Path(os.devnull)
    monkeypatch.setenv("K2_LOG_FILE", text)
    assert load_settings().log_file == Path(os.devnull)


def test_a_folder_is_no_log_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("K2_LOG_FILE", str(tmp_path))
    with pytest.raises(SettingsError, match=r"K2_LOG_FILE=.*: expected a file, not a folder"):
        load_settings()


PATHS = [
    str(field.validation_alias)
    for name, field in Settings.model_fields.items()
    if "Path" in str(field.annotation) and name != "log_file"
]


@pytest.mark.parametrize("variable", PATHS)
def test_an_empty_path_is_not_set(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str
) -> None:
    field = next(n for n, f in Settings.model_fields.items() if f.validation_alias == variable)
    unset = getattr(load_settings(), field)
    monkeypatch.setenv(variable, "")
    assert getattr(load_settings(), field) == unset
    monkeypatch.delenv(variable)
    file = tmp_path / "k2.env"
    file.write_text(f"{variable}=\n")
    assert getattr(load_settings(env_file=file), field) == unset


def test_an_empty_path_leaves_the_word_to_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert {"K2_LAKE_DIR", "K2_DLQ_DIR", "K2_STATE_DIR", "BINANCE_TLS_CA"} <= set(PATHS)
    file = tmp_path / "k2.env"
    file.write_text("K2_LAKE_DIR=elsewhere\n")
    monkeypatch.setenv("K2_LAKE_DIR", "")
    assert load_settings(env_file=file).lake_path == Path("elsewhere")


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    file = tmp_path / "k2.env"
    file.write_bytes(b"K2_LAKE_DIR=\xff\xfe\n")
    with pytest.raises(SettingsError, match=r"k2\.env: cannot be read: not UTF-8"):
        load_settings(env_file=file)


@pytest.mark.parametrize(
    ("ws_url", "environment"),
    [
        ("wss://stream.binance.com:9443/ws", "production"),
        ("wss://data-stream.binance.vision/stream", "production"),
        ("wss://stream.testnet.binance.vision/ws", "testnet"),
        ("wss://demo-stream.binance.com/ws", "demo"),
        ("wss://stream.binance.us:9443/ws", "binance.us"),
        ("ws://localhost:9443/ws", "simulated"),
        ("wss://stream.binance.com.example.org/ws", "simulated"),
        ("wss://notbinance.com/ws", "simulated"),
    ],
)
def test_whose_ids_these_are_follows_from_the_host(ws_url: str, environment: str) -> None:
    assert load_settings({"ws_url": ws_url}).environment == environment


OWN = "wss://stream.binance.com:9443/ws"
TESTNET = "wss://stream.testnet.binance.vision/ws"


@pytest.mark.parametrize(
    ("ws_url", "fallback", "legs", "urls"),
    [
        (None, None, None, (OWN, SECOND)),
        (None, "", 2, (OWN, SECOND)),
        (None, None, 1, (OWN,)),
        (None, "wss://stream.binance.com:443/ws", 2, (OWN, "wss://stream.binance.com:443/ws")),
        (TESTNET, None, 2, (TESTNET, TESTNET)),
        ("ws://box:9443/ws", None, 2, ("ws://box:9443/ws", "ws://box:9443/ws")),
        ("ws://box:9443/ws", "ws://other:1/ws", 2, ("ws://box:9443/ws", "ws://other:1/ws")),
        ("ws://box:9443/ws", None, 1, ("ws://box:9443/ws",)),
    ],
)
def test_the_second_leg_is_binances_own_second_host_or_the_same_address(
    ws_url: str | None, fallback: str | None, legs: int | None, urls: tuple[str, ...]
) -> None:
    given = {"ws_url": ws_url, "ws_url_fallback": fallback, "legs": legs}
    assert load_settings(given).leg_urls == urls


@pytest.mark.parametrize(
    ("ws_url", "fallback"),
    [(OWN, TESTNET), (TESTNET, SECOND), ("ws://box/ws", SECOND), (OWN, "ws://box/ws")],
)
def test_a_second_leg_to_another_exchange_is_refused(ws_url: str, fallback: str) -> None:
    with pytest.raises(SettingsError, match=r"BINANCE_WS_URL_FALLBACK=.*ids of two must not mix"):
        load_settings({"ws_url": ws_url, "ws_url_fallback": fallback})
    # Not used, it harms nobody.
    assert load_settings({"ws_url": ws_url, "ws_url_fallback": fallback, "legs": 1}).legs == 1


def test_a_quote_asset_can_stand_for_its_symbols() -> None:
    assert load_settings({"symbols": "all:usdt btcusdc"}).symbols == ("ALL:USDT", "BTCUSDC")


def test_settings_do_not_change_and_every_one_says_what_it_means() -> None:
    settings = load_settings()
    with pytest.raises(ValidationError):
        settings.shards = 2
    rows = {row.variable: row for row in setting_rows(settings)}
    assert {variable for variable, *_ in VARIABLES} <= set(rows)
    assert rows["BINANCE_SYMBOLS"].value == "BTCUSDT,ETHUSDT,BNBUSDT"
    assert rows["BINANCE_STREAM"].value == "aggTrade"
    assert all(len(row.meaning) > 10 for row in rows.values())
