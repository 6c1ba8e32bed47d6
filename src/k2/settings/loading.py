"""Every setting, read once: command line over environment over file over default."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from pydantic import ValidationError
from pydantic_settings import DotEnvSettingsSource

from k2.errors import K2Error
from k2.market import StreamKind
from k2.settings.security import (
    MASK,
    SECRETS,
    SecuritySettings,
    contradictions,
    read_secrets,
    shown,
    variable,
)
from k2.settings.tree import Settings, environment_of

SESSION_FILE = "k2.env"
"""In the state directory: what ``k2 up`` ran last there, as the file layer of reading commands."""

OUR_PREFIXES = ("BINANCE_", "K2_")

# Read elsewhere: the jar cache of the local stack, and a deployment's own bookkeeping.
_KNOWN_ELSEWHERE = frozenset({"K2_CACHE_DIR", "K2_MAVEN_MIRROR", "K2_IMAGE_TAG", "K2_REVISION"})


class SettingsError(K2Error):
    """A setting is unknown or has a value that cannot be: exit 2 before any socket is opened."""


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
    given = _second_leg(env_file) | {
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
    if environment_of(settings.leg_urls[-1]) != settings.environment:
        raise SettingsError(
            f"BINANCE_WS_URL_FALLBACK={settings.ws_url_fallback}: expected an address of the same "
            f"exchange as BINANCE_WS_URL ({settings.environment}): ids of two must not mix"
        )
    return settings


def _second_leg(env_file: Path | None) -> dict[str, str]:
    """Return the file's second leg where the environment's is of another exchange than the file's.

    Whoever sets one address only did not mean it for the built-in exchange that ``k2 up`` ran last;
    beside an exchange that somebody named it is a mistake, and refused like any other.
    """
    in_file = _in_file(env_file)
    ws_url, fallback = in_file.get("BINANCE_WS_URL"), os.environ.get("BINANCE_WS_URL_FALLBACK")
    if not ws_url or not fallback or "BINANCE_WS_URL" in os.environ:
        return {}
    try:
        fits = environment_of(fallback) == environment_of(ws_url)
        chosen = environment_of(ws_url) == "simulated"
    except ValueError:  # no address: that is said where it is read
        return {}
    if fits or not chosen:
        return {}
    return {"BINANCE_WS_URL_FALLBACK": in_file.get("BINANCE_WS_URL_FALLBACK") or ""}


def _refuse_unknown(env_file: Path | None) -> None:
    known = {str(field.validation_alias) for field in Settings.model_fields.values()}
    in_file = _in_file(env_file)
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


def _in_file(env_file: Path | None) -> Mapping[str, str | None]:
    try:
        return DotEnvSettingsSource(Settings, env_file=env_file, case_sensitive=True).env_vars
    except (OSError, UnicodeDecodeError) as exc:
        why = exc.strerror if isinstance(exc, OSError) else "not UTF-8"
        raise SettingsError(f"{env_file}: cannot be read: {why}") from None


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
    # Up to the last @: a password may hold any character, the scheme may be forgotten.
    given = re.sub(r"^(\W*(?:\w+://)?).*@", rf"\g<1>{MASK}@", repr(error["input"]))
    return f"{name}={given}: expected {expected}"
