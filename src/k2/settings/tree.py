"""The tree of settings: a field's description is its documentation.

The names are the runbooks' own (operations contract, section 1.3). Durations are seconds, sizes are
bytes.
"""

from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from k2.kafka.connection import KafkaConnection
from k2.kafka.registry import Registry
from k2.market import StreamKind
from k2.settings.connections import kafka_connection, registry_of
from k2.settings.security import SecuritySettings
from k2.settings.sources import without_empty_paths
from k2.settings.values import (
    Bootstrap,
    LogFile,
    PortNumber,
    RestUrls,
    Seconds,
    Symbols,
    optional_url,
    url,
)

DATA_STREAM_URL = "wss://data-stream.binance.vision/ws"
"""Binance's second host for the same market streams."""


class Settings(SecuritySettings):
    """One frozen tree. Build it with ``load_settings``."""

    model_config = SettingsConfigDict(
        frozen=True, extra="ignore", populate_by_name=True, hide_input_in_errors=True
    )

    ws_url: Annotated[str, url("wss", "ws")] = Field(
        default="wss://stream.binance.com:9443/ws",
        validation_alias="BINANCE_WS_URL",
        description="WebSocket address, the /ws or the /stream form.",
    )
    ws_url_fallback: Annotated[str, optional_url("wss", "ws")] = Field(
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
    kafka_bootstrap: Bootstrap = Field(
        default="localhost:9092",
        validation_alias="KAFKA_BOOTSTRAP",
        description="Kafka's host:port, several separated by commas.",
    )
    topic_prefix: Annotated[str, Field(pattern=r"^[a-zA-Z0-9._-]{1,200}$")] = Field(
        default="market.crypto.trades",
        validation_alias="KAFKA_TOPIC_PREFIX",
        description="Trades go to the topic PREFIX.binance, beside it .positions and .gaps.",
    )
    schema_registry_url: Annotated[str, url("http", "https")] = Field(
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
    log_file: LogFile = Field(
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
        del file_secret_settings
        return init_settings, *without_empty_paths(settings_cls, env_settings, dotenv_settings)

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
        return environment_of(self.ws_url)


def environment_of(ws_url: str) -> str:
    """Return whose ids an address gives: production, testnet, demo, binance.us or simulated."""
    host = urlsplit(ws_url).hostname or ""
    if host.endswith((".binance.com", ".binance.vision")):
        for name in ("testnet", "demo"):
            if name in host:
                return name
        return "production"
    return "binance.us" if host.endswith(".binance.us") else "simulated"
