"""A page of the past, asked for until REST gives it."""

import asyncio
from collections.abc import Callable

import structlog

from k2.binance.rest import UnknownSymbolError
from k2.ingestion.host import Host
from k2.ingestion.ports import Rest
from k2.ingestion.supervision import until_it_works
from k2.market import BadRow, Trade

FAILED_DELAY_S = 1.0
FAILED_DELAY_MAX_S = 30.0
"""A REST that refuses (403, 451, 5xx) is asked ever more slowly."""

DELISTED_DELAY_S = 300.0

_log = structlog.get_logger()


async def page_from(
    rest: Rest,
    symbol: str,
    *,
    from_id: int,
    host: Host,
    unlisted: Callable[[], None] = lambda: None,
) -> list[Trade | BadRow]:
    """Return rows with ids from ``from_id`` on, ascending, however long REST is away.

    ``unlisted`` is told that the exchange does not list the symbol: the wait may be a long one.
    """
    while True:
        try:
            return await page_while_listed(rest, symbol, from_id=from_id, host=host)
        except UnknownSymbolError as exc:
            unlisted()
            tell_unlisted(symbol, exc)
            await asyncio.sleep(DELISTED_DELAY_S)


async def page_while_listed(
    rest: Rest, symbol: str, *, from_id: int, host: Host
) -> list[Trade | BadRow]:
    """Return rows with ids from ``from_id`` on, ascending, for whoever has other symbols too.

    Raises:
        UnknownSymbolError: If the exchange does not list the symbol, perhaps not for long.
    """

    async def ask() -> list[Trade | BadRow] | UnknownSymbolError:
        try:
            return await rest.rows_from(symbol, from_id=from_id)
        except UnknownSymbolError as exc:
            return exc  # an answer: REST is there

    answer = await until_it_works(
        f"the past of {symbol}",
        ask,
        draw=host.draw,
        delay_min_s=FAILED_DELAY_S,
        delay_max_s=FAILED_DELAY_MAX_S,
    )
    if isinstance(answer, UnknownSymbolError):
        raise answer
    return answer


def tell_unlisted(symbol: str, problem: UnknownSymbolError) -> None:
    """Say that a symbol is asked for again only after ``DELISTED_DELAY_S``."""
    _log.warning("symbol_unlisted", symbol=symbol, reason=str(problem), again_in_s=DELISTED_DELAY_S)
