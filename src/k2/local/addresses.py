"""Where the services of one ``k2 up`` listen, and what they and later commands are told of it."""

import os
import re
from collections.abc import Mapping
from pathlib import Path

import msgspec

from k2.local.observe import PORT, require_unused
from k2.local.ports import WantedPort, remembered_ports
from k2.local.stack import StackAddress
from k2.local.up_options import UpOptions
from k2.local.venue import Venue
from k2.settings import SESSION_FILE
from k2.settings.security import LOGIN_VARIABLES

_FOR_LATER = (
    *("BINANCE_SYMBOLS", "BINANCE_STREAM", "BINANCE_WS_URL", "BINANCE_WS_URL_FALLBACK"),
    *("BINANCE_REST_URL",),
    *("KAFKA_BOOTSTRAP", "KAFKA_TOPIC_PREFIX", "SCHEMA_REGISTRY_URL", "K2_LAKE_DIR"),
    "K2_SYMBOLS_FILE",
)


class ServicePorts(msgspec.Struct, frozen=True):
    """Where capture and archive serve their pages; 0 is off."""

    metrics: int
    archive_metrics: int
    health: int
    archive_health: int

    def wanted(self) -> list[WantedPort]:
        """Return those that have to be free."""
        ports = [
            WantedPort(self.metrics, "/metrics", "K2_METRICS_PORT"),
            WantedPort(self.archive_metrics, "/metrics", "K2_ARCHIVE_METRICS_PORT"),
            WantedPort(self.health, "/health", "K2_HEALTH_PORT"),
            WantedPort(self.archive_health, "/health", "K2_ARCHIVE_HEALTH_PORT"),
        ]
        return [one for one in ports if one.port]


class Addresses:
    """The ports of one run: those of the settings, or free ones that stay from run to run."""

    def __init__(self, options: UpOptions, state_dir: Path) -> None:
        """Decide nothing yet: who asks for a port gets one."""
        self._settings = options.settings
        self._auto = options.auto_ports
        self._state_dir = state_dir
        asked = (options.kafka_port, options.registry_port, options.advertised_port)
        self._asked = {port for port in asked if port is not None}

    def services(self) -> ServicePorts:
        """Return where the services listen."""
        if self._auto:
            names = ("metrics-stream", "metrics-archive", "health", "health-archive")
            ports = self._remembered(*names)
            return ServicePorts(*(ports[name] for name in names))
        return ServicePorts(
            self._settings.metrics_port,
            self._settings.archive_metrics_port,
            self._settings.health_port,
            self._settings.archive_health_port,
        )

    def exchange(self) -> int:
        """Return where the built-in exchange listens: always a free port, nobody knows it."""
        return self._remembered("exchange")["exchange"]

    def prometheus(self) -> int:
        """Return where Prometheus listens.

        Raises:
            StopError: If its own port is wanted and taken.
        """
        if self._auto:
            return self._remembered("prometheus")["prometheus"]
        require_unused(PORT)
        return PORT

    def environ(self, venue: Venue, stack: StackAddress) -> dict[str, str]:
        """Return the environment of the services: ours, with this run's addresses in it."""
        ports = self.services()
        return {
            # How somebody else's Kafka lets in is of no use to this one.
            **{name: value for name, value in os.environ.items() if name not in LOGIN_VARIABLES},
            **kafka_environ(stack),
            "KAFKA_TOPIC_PREFIX": venue.topic_prefix,
            "BINANCE_STREAM": self._settings.stream.value,
            "BINANCE_WS_URL": self._settings.ws_url,
            "BINANCE_WS_URL_FALLBACK": self._settings.ws_url_fallback,
            "BINANCE_REST_URL": ",".join(self._settings.rest_urls),
            "K2_STATE_DIR": str(self._state_dir),
            "K2_LOG_FILE": "off",  # what a service prints is its log: logs/NAME.log
            "K2_LAKE_DIR": str(venue.lake_dir),
            "K2_METRICS_PORT": str(ports.metrics),
            "K2_ARCHIVE_METRICS_PORT": str(ports.archive_metrics),
            "K2_HEALTH_PORT": str(ports.health),
            "K2_ARCHIVE_HEALTH_PORT": str(ports.archive_health),
        }

    def _remembered(self, *names: str) -> dict[str, int]:
        return remembered_ports(self._state_dir / "ports.json", names, excluding=self._asked)


def kafka_environ(stack: StackAddress) -> dict[str, str]:
    """Return what says where Kafka and registry are."""
    return {"KAFKA_BOOTSTRAP": stack.bootstrap, "SCHEMA_REGISTRY_URL": stack.registry_url}


def write_session(state_dir: Path, environ: Mapping[str, str]) -> None:
    """Leave the addresses for ``k2 verify``, ``query``, ``tail`` and ``schema``."""
    lines = [f"{name}={_quoted(environ[name])}" for name in _FOR_LATER if name in environ]
    text = "# Written by k2 up: what this state directory ran last.\n" + "\n".join(lines) + "\n"
    path = state_dir / SESSION_FILE
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def _quoted(value: str) -> str:
    """Return a value as python-dotenv reads it back."""
    if re.fullmatch(r"[\w./:,@%+=~-]*", value):
        return value
    # It expands ${NAME} within quotes too and knows no escape; but no name at all has a default.
    value = value.replace("${", "${:-$}{")
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
