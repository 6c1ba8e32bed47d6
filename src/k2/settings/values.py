"""What a setting's value may be: each says what was expected where it is not."""

import os
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_settings import NoDecode

from k2.market.wanted import ALL, could_be_listed


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


def url(*schemes: str) -> AfterValidator:
    """Accept an address of one of these schemes, and no user in it."""

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


def optional_url(*schemes: str) -> AfterValidator:
    """Accept one such address, or nothing."""
    check = url(*schemes).func
    return AfterValidator(lambda value: check(value) if value else "")  # type: ignore[call-arg]


def _at_least_one(value: tuple[str, ...]) -> tuple[str, ...]:
    if not value:
        raise ValueError("at least one address such as https://host:port")
    return value


def _log_file(value: Any) -> Any:
    return os.devnull if value in ("off", "") else value


def _no_folder(path: Path | None) -> Path | None:
    if path is not None and path.is_dir():
        raise ValueError("a file, not a folder")
    return path


def _bootstrap(value: str) -> str:
    for part in value.split(","):
        host, _, port = part.strip().rpartition(":")
        if not host or not port.isdigit() or not 0 < int(port) < 65536:
            raise ValueError("host:port, several separated by commas")
    if "@" in value:
        raise ValueError("host:port, without a user in it: that is KAFKA_SASL_USERNAME")
    return value


Symbols = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split), AfterValidator(_symbols)]
RestUrls = Annotated[
    tuple[Annotated[str, url("https", "http")], ...],
    NoDecode,
    BeforeValidator(_split),
    AfterValidator(_at_least_one),
]
PortNumber = Annotated[int, Field(ge=0, lt=65536)]
Seconds = Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False)]
LogFile = Annotated[Path | None, BeforeValidator(_log_file), AfterValidator(_no_folder)]
Bootstrap = Annotated[str, AfterValidator(_bootstrap)]
