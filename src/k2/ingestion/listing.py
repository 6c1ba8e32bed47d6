"""Does the exchange list what is wanted? A name it never listed is a mistake of configuration."""

import asyncio
from collections.abc import Collection, Mapping

import structlog

from k2.errors import RetryError, StopError
from k2.ingestion.venue import rest_of
from k2.market import Symbol
from k2.market.wanted import Wanted
from k2.settings import Settings

ANSWER_MAX_S = 5.0
"""A person waits for a command."""

_log = structlog.get_logger()


class UnlistedError(StopError):
    """The exchange lists no symbol of a wanted name, and none was ever recorded under it."""

    def __init__(self, names: Collection[str]) -> None:
        """Name them."""
        self.names = sorted(names)
        super().__init__(f"the exchange does not list {', '.join(self.names)}")


def refuse_unlisted(
    names: Collection[str],
    listed: Mapping[str, Symbol],
    *,
    recorded: Collection[str],
    taped: Collection[str],
) -> None:
    """Refuse a wanted name the exchange does not list, unless it has a tape.

    It was delisted since then, and the others go on without it.

    Args:
        names: Wanted.
        listed: What the exchange lists of the wanted and the recorded.
        recorded: The active set.
        taped: Names with a tape.

    Raises:
        UnlistedError: Naming them.
        StopError: If nothing is left to record.
    """
    absent = sorted({*names, *recorded} - listed.keys())
    if unknown := [name for name in absent if name in names and name not in taped]:
        raise UnlistedError(unknown)
    if absent:
        _log.warning("symbols_delisted", symbols=absent, why="the exchange lists them no more")
    if not listed:
        raise StopError("the exchange lists none of the symbols: see BINANCE_SYMBOLS")


async def refuse_unlisted_yet(settings: Settings, wanted: Wanted) -> None:
    """Refuse names the exchange does not list while there is no tape at all.

    A REST that cannot be asked now is asked again once Kafka is there.

    Raises:
        UnlistedError: Naming them.
    """
    if not wanted.names:
        return
    try:
        listed = await _listed(settings, wanted.names)
    except RetryError:
        return
    refuse_unlisted(wanted.names, listed, recorded=(), taped=())


def unlisted(settings: Settings, names: Collection[str]) -> list[str] | None:
    """Return those the exchange does not list (blocking); None when it does not say in time."""
    if not names:
        return []

    async def ask() -> dict[str, Symbol]:
        async with asyncio.timeout(ANSWER_MAX_S):
            return await _listed(settings, names)

    try:
        listed = asyncio.run(ask())
    except (RetryError, TimeoutError):
        return None
    return sorted(set(names) - listed.keys())


async def _listed(settings: Settings, names: Collection[str]) -> dict[str, Symbol]:
    async with rest_of(settings) as rest:
        return await rest.symbols(sorted(names))


def how_to_mend(settings: Settings, names: Collection[str]) -> str:
    """Return where unlisted names come from, and what takes them out."""
    them = " ".join(sorted(names))
    if settings.symbols_file is not None:
        path = settings.symbols_file
        return f"named in {path}; `k2 symbols remove {them} --file {path}` takes it out"
    return f"named by --symbols or BINANCE_SYMBOLS; leave {them} out there"
