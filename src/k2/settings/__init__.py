"""Every setting: names, values, where they come from, and what may be shown of them."""

from k2.settings.loading import (
    OUR_PREFIXES,
    SESSION_FILE,
    SettingRow,
    SettingsError,
    load_settings,
    setting_rows,
)
from k2.settings.tree import Settings

__all__ = [
    "OUR_PREFIXES",
    "SESSION_FILE",
    "SettingRow",
    "Settings",
    "SettingsError",
    "load_settings",
    "setting_rows",
]
