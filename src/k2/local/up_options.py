"""What one ``k2 up`` was asked for."""

from dataclasses import dataclass
from pathlib import Path

from k2.settings import Settings


@dataclass(frozen=True, slots=True)
class UpOptions:
    """The command line and the settings, as values."""

    settings: Settings
    symbols_given: bool
    kafka_port: int | None
    """None picks a free one; so for the registry."""
    registry_port: int | None
    advertise: str | None
    advertised_port: int | None
    auto_ports: bool
    stack_only: bool
    exchange: str
    tape: Path | None
    speed: str
    rate: float
    run_for_s: float | None
    observe: bool
    """Run Prometheus beside it."""
