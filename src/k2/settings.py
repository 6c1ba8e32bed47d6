"""Every setting, read once: command line over environment over file over default.

The names are the runbooks' own (operations contract, section 1.3); a field's description is its
documentation. Durations are seconds, sizes are bytes.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import msgspec
from pydantic import AfterValidator, BeforeValidator, Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from k2.errors import K2Error
from k2.kafka.connection import KafkaConnection
from k2.kafka.registry import Registry
from k2.market import StreamKind
from k2.market.wanted import ALL, could_be_listed
from k2.settings_security import (
    MASK,
    SECRETS,
    SecuritySettings,
    contradictions,
    kafka_connection,
    read_secrets,
    registry_of,
    shown,
    variable,
)

SESSION_FILE = "k2.env"
"""In the state directory: what ``k2 up`` ran last there, as the file layer of reading commands."""

DATA_STREAM_URL = "wss://data-stream.binance.vision/ws"
"""Binance's second host for the same market streams."""

OUR_PREFIXES = ("BINANCE_", "K2_")

# Read elsewhere: the jar cache of the local stack, and a deployment's own bookkeeping.
_KNOWN_ELSEWHERE = frozenset({"K2_CACHE_DIR", "K2_MAVEN_MIRROR", "K2_IMAGE_TAG", "K2_REVISION"})


class SettingsError(K2Error):
    """A setting is unknown or has a value that cannot be: exit 2 before any socket is opened."""


def _split(value: Any) -> Any:
    if isinstance(value, str):
        return [part for part in value.replace(",", " ").split() if part]
    if isinstance(value, list | tuple):
        return [part for item in value for part in _split(item)]
    return value


def _symbols(value: tuple[str, ...]) -> tuple[str, ...]:
    symbols = tuple(dict.fromkeys(name.upper() for name in value))
    if not symbols:
        raise ValueError("at least one symbol, such as BTCUSDT,ETHUSDT")
    for name in symbols:
        if not could_be_listed(name.removeprefix(ALL)):
            raise ValueError(f"a symbol such as BTCUSDT, not {name!r}")
    return symbols


def _url(*schemes: str) -> AfterValidator:
    def check(value: str) -> str:
        expected = f"an address such as {schemes[0]}://host:port"
        try:
            parts = urlsplit(value)
            _ = parts.port  # raises where the port is no number or over 65535
        except ValueError as exc:
            raise ValueError(expected) from exc
        if parts.scheme not in schemes or not parts.hostname:
            raise ValueError(expected)
        if "@" in parts.netloc:
            # An address is shown in logs and on pages.
            raise ValueError(f"{expected}, without a user in it")
        return value.rstrip("/")

    return AfterValidator(check)


def _optional_url(*schemes: str) -> AfterValidator:
    check = _url(*schemes).func
    return AfterValidator(lambda value: check(value) if value else "")  # type: ignore[call-arg]


def _at_least_one(value: tuple[str, ...]) -> tuple[str, ...]:
    if not value:
        raise ValueError("at least one address such as https://host:port")
    return value


def _log_file(value: Any) -> Any:
    return os.devnull if value in ("off", "") else value


def _bootstrap(value: str) -> str:
    for part in value.split(","):
        host, _, port = part.strip().rpartition(":")
        if not host or not port.isdigit() or not 0 < int(port) < 65536:
            raise ValueError("host:port, several separated by commas")
    return value


Symbols = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split), AfterValidator(_symbols)]
RestUrls = Annotated[
    tuple[Annotated[str, _url("https", "http")], ...],
    NoDecode,
    BeforeValidator(_split),
    AfterValidator(_at_least_one),
]
PortNumber = Annotated[int, Field(ge=0, lt=65536)]
Seconds = Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False)]


class Settings(SecuritySettings):
    """One frozen tree. Build it with ``load_settings``."""

    model_config = SettingsConfigDict(
        frozen=True, extra="ignore", populate_by_name=True, hide_input_in_errors=True
    )

    ws_url: Annotated[str, _url("wss", "ws")] = Field(
        default="wss://stream.binance.com:9443/ws",
        validation_alias="BINANCE_WS_URL",
        description="WebSocket address, the /ws or the /stream form.",
    )
    ws_url_fallback: Annotated[str, _optional_url("wss", "ws")] = Field(
        default="",
        validation_alias="BINANCE_WS_URL_FALLBACK",
        description="Address of the second leg; default wss://data-stream.binance.vision/ws beside "
        "Binance's own BINANCE_WS_URL, else that same address.",
    )
    legs: Annotated[int, Field(ge=1, le=2)] = Field(
        default=2,
        validation_alias="BINANCE_LEGS",
        description="Connections every symbol arrives on at once: 2, or 1.",
    )
    connection_age_max_s: Annotated[Seconds, Field(gt=0, le=82_800)] = Field(
        default=14_400.0,
        validation_alias="BINANCE_CONNECTION_AGE_MAX",
        description="Age at which a connection is replaced, make before break, less up to 10 %.",
    )
    address_share: Annotated[float, Field(ge=0.01, le=1)] = Field(
        default=0.5,
        validation_alias="BINANCE_ADDRESS_SHARE",
        description="Part of the venue's limits per address (REST weight, connection attempts) "
        "this instance may use.",
    )
    role: Literal["auto", "observer"] = Field(
        default="auto",
        validation_alias="K2_ROLE",
        description="auto: writer or hot standby, as the lease says. observer: never writes.",
    )
    rest_urls: RestUrls = Field(
        default=("https://data-api.binance.vision", "https://api.binance.com"),
        validation_alias="BINANCE_REST_URL",
        description="REST addresses, tried in order, separated by commas.",
    )
    symbols: Symbols = Field(
        default=("BTCUSDT", "ETHUSDT", "BNBUSDT"),
        validation_alias="BINANCE_SYMBOLS",
        description="Symbols to record, separated by commas or spaces; all:USDT is whatever the "
        "exchange lists with that quote asset.",
    )
    symbols_file: Path | None = Field(
        default=None,
        validation_alias="K2_SYMBOLS_FILE",
        description="A file of symbols, one a line, that is followed while running and wins over "
        "BINANCE_SYMBOLS; edited by k2 symbols.",
    )
    listing_every_s: Annotated[Seconds, Field(gt=0)] = Field(
        default=3600.0,
        validation_alias="K2_LISTING_INTERVAL",
        description="With all:USDT, how often the exchange's listings are compared.",
    )
    stream: StreamKind = Field(
        default=StreamKind.AGG_TRADE,
        validation_alias="BINANCE_STREAM",
        description="aggTrade (one taker order at one price) or trade (single fills).",
    )
    reconnect_delay_min_s: Annotated[Seconds, Field(gt=0)] = Field(
        default=1.0,
        validation_alias="BINANCE_RECONNECT_DELAY_MIN",
        description="Smallest wait before connecting again.",
    )
    reconnect_delay_max_s: Annotated[Seconds, Field(gt=0)] = Field(
        default=60.0,
        validation_alias="BINANCE_RECONNECT_DELAY_MAX",
        description="Largest wait before connecting again.",
    )
    heartbeat_interval_s: Seconds = Field(
        default=180.0,
        validation_alias="BINANCE_HEARTBEAT_INTERVAL",
        description="Every so often the client sends a PING of its own; 0 never. "
        "(The server's pings, each 20 s, are always answered.)",
    )
    stale_after_s: Seconds = Field(
        default=30.0,
        validation_alias="BINANCE_STALE_TIMEOUT",
        description="Reconnect when neither a trade nor a server's ping came for so long; 0 never.",
    )
    batch_size: Annotated[int, Field(ge=1, le=100_000)] = Field(
        default=10_000,
        validation_alias="BINANCE_BATCH_SIZE",
        description="Most trades in one Kafka transaction.",
    )
    batch_timeout_s: Annotated[Seconds, Field(le=10)] = Field(
        default=0.05,
        validation_alias="BINANCE_BATCH_TIMEOUT",
        description="Longest a trade waits for its Kafka transaction to begin.",
    )
    kafka_bootstrap: Annotated[str, AfterValidator(_bootstrap)] = Field(
        default="localhost:9092",
        validation_alias="KAFKA_BOOTSTRAP",
        description="Kafka's host:port, several separated by commas.",
    )
    topic_prefix: Annotated[str, Field(pattern=r"^[a-zA-Z0-9._-]{1,200}$")] = Field(
        default="market.crypto.trades",
        validation_alias="KAFKA_TOPIC_PREFIX",
        description="Trades go to the topic PREFIX.binance, beside it .positions and .gaps.",
    )
    schema_registry_url: Annotated[str, _url("http", "https")] = Field(
        default="http://localhost:8081",
        validation_alias="SCHEMA_REGISTRY_URL",
        description="A registry with Confluent's paths at this address.",
    )
    shards: Annotated[int, Field(ge=1, le=64)] = Field(
        default=1,
        validation_alias="K2_SHARDS",
        description="Partitions of the topics when they are created; fixed from then on.",
    )
    heal_wait_max_s: Seconds = Field(
        default=60.0,
        validation_alias="K2_HEAL_WAIT_MAX",
        description="How long ids that REST skips may still come before a gap is declared.",
    )
    state_dir: Path = Field(
        default=Path("var"),
        validation_alias="K2_STATE_DIR",
        description="Where k2 up keeps Kafka, the registry and the lake.",
    )
    lake_dir: Path | None = Field(
        default=None,
        validation_alias="K2_LAKE_DIR",
        description="The lake's folder (SQLite catalog and files); default STATE_DIR/lake.",
    )
    lake_catalog: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]*$")] = Field(
        default="",
        validation_alias="K2_LAKE_CATALOG",
        description="A catalog of pyiceberg's own configuration (.pyiceberg.yaml, PYICEBERG_*) "
        "instead of the lake's folder.",
    )
    flush_age_s: Annotated[Seconds, Field(gt=0, le=300)] = Field(
        default=2.0,
        validation_alias="K2_FLUSH_AGE",
        description="Longest a trade waits in the archive before its table commit begins.",
    )
    flush_rows: Annotated[int, Field(ge=1, le=10_000_000)] = Field(
        default=200_000,
        validation_alias="K2_FLUSH_ROWS",
        description="Rows that begin a table commit early.",
    )
    flush_bytes: Annotated[int, Field(ge=1024, le=4 << 30)] = Field(
        default=64 << 20,
        validation_alias="K2_FLUSH_BYTES",
        description="Bytes of records that begin a table commit early.",
    )
    dead_letter_dir: Path = Field(
        default=Path("/tmp/dlq"),  # noqa: S108 - the runbooks' own path (contract R144)
        validation_alias="K2_DLQ_DIR",
        description="Where bad input is kept, one file a day.",
    )
    dead_letter_file_bytes: Annotated[int, Field(ge=1 << 20, le=4 << 30)] = Field(
        default=64 << 20,
        validation_alias="K2_DLQ_FILE_BYTES",
        description="Size at which a day's dead letters go on in a file with the next number.",
    )
    dead_letter_dir_bytes: Annotated[int, Field(ge=1 << 20, le=1 << 40)] = Field(
        default=1 << 30,
        validation_alias="K2_DLQ_DIR_BYTES",
        description="Most bytes of dead letters kept; the oldest files go first.",
    )
    dead_letter_fsync: Literal["each", "interval", "never"] = Field(
        default="interval",
        validation_alias="K2_DLQ_FSYNC",
        description="When dead letters are forced onto the disk: each before it counts as written, "
        "interval once a second, never by k2.",
    )
    metrics_port: PortNumber = Field(
        default=9091,
        validation_alias="K2_METRICS_PORT",
        description="k2 stream serves /metrics here on loopback; 0 turns it off.",
    )
    health_port: PortNumber = Field(
        default=8001,
        validation_alias="K2_HEALTH_PORT",
        description="k2 stream serves /health here on loopback; 0 turns it off.",
    )
    archive_metrics_port: PortNumber = Field(
        default=9095,
        validation_alias="K2_ARCHIVE_METRICS_PORT",
        description="k2 archive serves /metrics here on loopback; 0 turns it off.",
    )
    archive_health_port: PortNumber = Field(
        default=8003,
        validation_alias="K2_ARCHIVE_HEALTH_PORT",
        description="k2 archive serves /health here on loopback, and k2 stream looks there for the "
        "lake's state; 0 turns both off.",
    )
    color: Annotated[str, Field(pattern=r"^[a-z]{0,20}$")] = Field(
        default="",
        validation_alias="K2_COLOR",
        description="blue or green: which of two deployments this is; only shown (k2_build_info).",
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", validation_alias="K2_LOG_LEVEL", description="Least level logged."
    )
    log_file: Annotated[Path | None, BeforeValidator(_log_file)] = Field(
        default=None,
        validation_alias="K2_LOG_FILE",
        description="Also log to this file; off or empty turns the file off. Default: "
        "logs/binance_client.log for k2 stream, logs/archive.log for k2 archive.",
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Keep command line, environment and file, in this order."""
        del settings_cls, file_secret_settings
        return init_settings, env_settings, dotenv_settings

    @property
    def kafka(self) -> KafkaConnection:
        """Where Kafka is and how k2 is let in."""
        return kafka_connection(self, bootstrap=self.kafka_bootstrap)

    @property
    def registry(self) -> Registry:
        """The schema registry, with its login."""
        return registry_of(self, url=self.schema_registry_url)

    @property
    def lake_path(self) -> Path:
        """The lake's folder."""
        return self.lake_dir or self.state_dir / "lake"

    @property
    def leg_urls(self) -> tuple[str, ...]:
        """The address of each leg."""
        return (self.ws_url, self._second_url)[: self.legs]

    @property
    def _second_url(self) -> str:
        if self.ws_url_fallback:
            return self.ws_url_fallback
        # Never Binance beside another exchange: their ids have nothing to do with each other.
        own = type(self).model_fields["ws_url"].default
        return DATA_STREAM_URL if self.ws_url == own else self.ws_url

    @property
    def environment(self) -> str:
        """Whose ids these are, told by the exchange's host: part of a tape's identity."""
        return _environment(self.ws_url)


def _environment(ws_url: str) -> str:
    host = urlsplit(ws_url).hostname or ""
    if host.endswith((".binance.com", ".binance.vision")):
        for name in ("testnet", "demo"):
            if name in host:
                return name
        return "production"
    return "binance.us" if host.endswith(".binance.us") else "simulated"


class SettingRow(msgspec.Struct, frozen=True):
    """One setting, for a table of them."""

    variable: str
    value: str
    meaning: str


def load_settings(
    overrides: Mapping[str, Any] | None = None, *, env_file: Path | None = None
) -> Settings:
    """Read all settings once.

    Args:
        overrides: Field name to value, from the command line; None values are left out.
        env_file: A file of ``NAME=value`` lines that the environment overrides.

    Raises:
        SettingsError: Naming each variable, the value and what was expected.
    """
    _refuse_unknown(env_file)
    given = {
        str(Settings.model_fields[name].validation_alias): value
        for name, value in (overrides or {}).items()
        if value is not None
    }
    try:
        settings = Settings(_env_file=env_file, **given)  # type: ignore[call-arg]
        settings = settings.model_copy(update=read_secrets(settings))
    except ValidationError as exc:
        # Without its cause, here and below: the frames of that hold the secrets.
        raise SettingsError("; ".join(_problem(error) for error in exc.errors())) from None
    except ValueError as exc:
        raise SettingsError(str(exc)) from None
    if wrong := contradictions(settings):
        raise SettingsError("; ".join(wrong))
    if settings.reconnect_delay_min_s > settings.reconnect_delay_max_s:
        raise SettingsError(
            f"BINANCE_RECONNECT_DELAY_MIN={settings.reconnect_delay_min_s:g}: expected at most "
            f"BINANCE_RECONNECT_DELAY_MAX, which is {settings.reconnect_delay_max_s:g}"
        )
    if _environment(settings.leg_urls[-1]) != settings.environment:
        raise SettingsError(
            f"BINANCE_WS_URL_FALLBACK={settings.ws_url_fallback}: expected an address of the same "
            f"exchange as BINANCE_WS_URL ({settings.environment}): ids of two must not mix"
        )
    return settings


def _refuse_unknown(env_file: Path | None) -> None:
    known = {str(field.validation_alias) for field in Settings.model_fields.values()}
    in_file = DotEnvSettingsSource(Settings, env_file=env_file, case_sensitive=True).env_vars
    unknown = [
        name
        for name in sorted({*os.environ, *in_file})
        if name.startswith(OUR_PREFIXES) and name not in known | _KNOWN_ELSEWHERE
    ]
    del in_file  # it may hold secrets, which a traceback of this frame would show
    if unknown:
        raise SettingsError(
            f"unknown variable {', '.join(unknown)}: k2 knows " + ", ".join(sorted(known))
        )


def setting_rows(settings: Settings) -> list[SettingRow]:
    """Return every setting with its variable, value and meaning; secrets are masked."""
    rows = []
    fields = Settings.model_fields.items()
    for name, field in sorted(fields, key=lambda item: item[0] in SecuritySettings.model_fields):
        value = shown(name, getattr(settings, name))
        if isinstance(value, StreamKind):
            value = value.value
        text = ",".join(value) if isinstance(value, tuple) else "" if value is None else str(value)
        rows.append(SettingRow(str(field.validation_alias), text, field.description or ""))
    return rows


def _problem(error: Any) -> str:
    name = str(error["loc"][0]) if error["loc"] else "settings"
    expected = error["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    if name in {variable(secret) for secret in SECRETS}:
        return f"{name}={MASK}: expected {expected}"
    given = re.sub(r"//[^/\s]*@", f"//{MASK}@", repr(error["input"]))
    return f"{name}={given}: expected {expected}"
