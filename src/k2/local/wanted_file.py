"""Which symbols a local run records: what was given, asked of the exchange, then kept in a file."""

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

from k2.errors import RetryError, StopError
from k2.ingestion.symbols_file import read_wanted, write_file
from k2.ingestion.venue import rest_of
from k2.local.venue import Venue, VenueKind
from k2.market.wanted import parse_names
from k2.settings import Settings, SettingsError

LISTING_MAX_S = 5.0
"""An exchange that does not say in time what it lists is asked by the capture, patiently."""


async def keep_symbols(
    venue: Venue,
    settings: Settings,
    symbols: Sequence[str],
    *,
    rest_urls: Sequence[str],
    symbols_given: bool,
) -> Path:
    """Keep the symbols in the file that ``k2 symbols`` edits; return it.

    A file of the operator's own, and one from last time when no symbols were given, stay as they
    are.

    Raises:
        SettingsError: If the exchange does not list a new name; nothing is written then.
    """
    if settings.symbols_file is not None:
        return settings.symbols_file.absolute()
    path = settings.state_dir.absolute() / f"symbols-{venue.lake_dir.name}.txt"
    given = symbols_given or "BINANCE_SYMBOLS" in os.environ
    if given or venue.kind is VenueKind.RECORDING or not path.exists():
        place = "--symbols" if symbols_given else "BINANCE_SYMBOLS" if given else "default"
        new = parse_names(symbols).names - _names_before(path)
        await _require_listed(sorted(new), place=place, settings=settings, rest_urls=rest_urls)
        write_file(path, "\n".join(symbols) + "\n")
    return path


def _names_before(path: Path) -> frozenset[str]:
    """Return what was wanted last time: those may have been delisted since, and have tapes."""
    try:
        return read_wanted(path).names
    except StopError:
        return frozenset()


async def _require_listed(
    names: Sequence[str], *, place: str, settings: Settings, rest_urls: Sequence[str]
) -> None:
    if not names:
        return
    try:
        async with asyncio.timeout(LISTING_MAX_S), rest_of(settings, urls=rest_urls) as rest:
            listed = await rest.symbols(names)
    except (RetryError, TimeoutError):
        return
    if absent := [name for name in names if name not in listed]:
        them = " ".join(absent)
        how = (
            "name others with --symbols"
            if place == "default"
            else f"named by {place}; leave {them} out there"
        )
        raise SettingsError(f"the exchange does not list {them}, {how}. Nothing was changed")
