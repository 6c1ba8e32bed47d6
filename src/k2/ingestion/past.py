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

    async def ask() -> list[Trade | BadRow]:
        while True:
            try:
                return await rest.rows_from(symbol, from_id=from_id)
            except UnknownSymbolError as exc:
                unlisted()
                _log.warning(
                    "symbol_unlisted", symbol=symbol, reason=str(exc), again_in_s=DELISTED_DELAY_S
                )
                await asyncio.sleep(DELISTED_DELAY_S)

    return await until_it_works(
        f"the past of {symbol}",
        ask,
        draw=host.draw,
        delay_min_s=FAILED_DELAY_S,
        delay_max_s=FAILED_DELAY_MAX_S,
    )
