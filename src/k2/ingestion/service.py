"""What both services' command lines share: settings read once, or one clear line."""

import sys
from collections.abc import Mapping
from typing import Any

from k2.settings import Settings, SettingsError, load_settings


def read_settings(command: str, overrides: Mapping[str, Any]) -> Settings | None:
    """Return the settings, or None after saying on stderr what is wrong with them."""
    try:
        return load_settings(overrides)
    except SettingsError as exc:
        print(f"k2 {command}: {exc}", file=sys.stderr)  # noqa: T201 - no logging is set up yet
        return None
