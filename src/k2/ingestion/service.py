"""What both services' command lines share: settings and log, or one clear line."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from k2.observability.logging import configure_logging
from k2.settings import Settings, SettingsError, load_settings


def read_settings(command: str, overrides: Mapping[str, Any]) -> Settings | None:
    """Return the settings, or None after saying on stderr what is wrong with them."""
    try:
        return load_settings(overrides)
    except SettingsError as exc:
        _say(command, str(exc))
        return None


def log_to_file(service: str, settings: Settings, *, default: Path) -> bool:
    """Begin to log; False after saying on stderr why the file cannot be written."""
    file = settings.log_file or default
    try:
        configure_logging(service=service, level=settings.log_level, file=file)
    except OSError as exc:
        _say(service, f"no log can be written, set K2_LOG_FILE to another file, or to off: {exc}")
        return False
    return True


def _say(command: str, text: str) -> None:
    print(f"k2 {command}: {text}", file=sys.stderr)  # noqa: T201 - no logging is set up yet
