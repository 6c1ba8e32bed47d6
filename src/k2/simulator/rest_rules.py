"""The rules of REST parameters: query text in, a typed request or the venue's error out.

PURE. Source: Binance spot API docs, "REST API" and "Error codes" (fact sheet 6.2, 6.4, checked
2026-11-21). Inferred where marked: ``-1128`` for ``fromId`` with times; an empty answer when
``startTime`` is after ``endTime``.
"""

import json
import re
from collections.abc import Iterable, Sequence

import msgspec

LIMIT_DEFAULT = 500
LIMIT_MAX = 1000
EARLIEST_TS_US = 1_483_228_800_000_000
"""2017-01-01: times before it are moved up to it, since 2024-12-09."""
AHEAD_MAX_US = 10_000_000
"""Times further ahead than this are moved back to it."""

_SYMBOL_RANGE = r"^[\w\-._&&[^a-z]]{1,50}$"
_SYMBOL = re.compile(r"[\w.-]{1,50}")
_LOWERCASE = re.compile(r"[a-z]")
_NUMBER_RANGE = r"^[0-9]{1,20}$"
_NUMBER = re.compile(r"[0-9]{1,20}")


class RestError(Exception):
    """An HTTP 400 with the venue's code and message."""

    def __init__(self, code: int, msg: str) -> None:
        super().__init__(msg)
        self.code = code
        self.msg = msg


class RowsRequest(msgspec.Struct, frozen=True):
    """Which rows are asked for; at most one of ``from_id`` and the times is set.

    Times are microseconds, inclusive; an end given in milliseconds includes that millisecond.
    """

    symbol: str
    limit: int
    from_id: int | None = None
    start_ts_us: int | None = None
    end_ts_us: int | None = None


class Query:
    """The parameters of one request, read one by one; what is left over is an error.

    Raises:
        RestError: From each method, as the venue would answer.
    """

    def __init__(self, pairs: Sequence[tuple[str, str]], *, known: Iterable[str]) -> None:
        self._values = dict(pairs)
        known = set(known)
        if len(self._values) != len(pairs):
            raise RestError(-1101, "Duplicate values for a parameter detected.")
        unread = [name for name in self._values if name not in known]
        if unread:
            read = len(self._values) - len(unread)
            raise RestError(
                -1104,
                f"Not all sent parameters were read; read '{read}' parameter(s) but was sent "
                f"'{len(self._values)}'.",
            )

    def text(self, name: str) -> str | None:
        """Return a parameter as it came."""
        return self._values.get(name)

    def symbol(self, listed: Iterable[str]) -> str:
        """Return the mandatory, listed ``symbol``."""
        symbol = self._values.get("symbol", "")
        if not symbol:
            raise RestError(
                -1102,
                "Mandatory parameter 'symbol' was not sent, was empty/null, or malformed.",
            )
        return check_symbol(symbol, listed, parameter="symbol")

    def number(self, name: str) -> int | None:
        """Return a parameter as a number that fits in 64 bits."""
        text = self._values.get(name)
        if text is None:
            return None
        if not text:
            raise RestError(-1105, f"Parameter '{name}' was empty.")
        if not _NUMBER.fullmatch(text):
            raise RestError(
                -1100,
                f"Illegal characters found in parameter '{name}'; "
                f"legal range is '{_NUMBER_RANGE}'.",
            )
        number = int(text)
        if number >= 2**63:
            raise RestError(-1130, f"Data sent for parameter '{name}' is not valid.")
        return number

    def limit(self) -> int:
        """Return ``limit``: 500 if absent, never over 1000."""
        limit = self.number("limit")
        if limit is None:
            return LIMIT_DEFAULT
        if limit == 0:
            raise RestError(-1130, "Data sent for parameter 'limit' is not valid.")
        return min(limit, LIMIT_MAX)


def check_symbol(symbol: str, listed: Iterable[str], *, parameter: str) -> str:
    """Return a listed symbol.

    Raises:
        RestError: ``-1100`` for characters no symbol has (lowercase too), ``-1121`` if not listed.
    """
    if not _SYMBOL.fullmatch(symbol) or _LOWERCASE.search(symbol):
        raise RestError(
            -1100,
            f"Illegal characters found in parameter '{parameter}'; "
            f"legal range is '{_SYMBOL_RANGE}'.",
        )
    if symbol not in listed:
        raise RestError(-1121, "Invalid symbol.")
    return symbol


def agg_trades_request(
    pairs: Sequence[tuple[str, str]], *, listed: Iterable[str], now_us: int
) -> RowsRequest:
    """Read the parameters of ``aggTrades``.

    Raises:
        RestError: As the venue would answer.
    """
    query = Query(pairs, known=("symbol", "fromId", "startTime", "endTime", "limit"))
    symbol = query.symbol(listed)
    from_id = query.number("fromId")
    start, end = query.number("startTime"), query.number("endTime")
    if from_id is not None and (start is not None or end is not None):
        raise RestError(-1128, "Combination of optional parameters invalid.")
    return RowsRequest(
        symbol=symbol,
        limit=query.limit(),
        from_id=from_id,
        start_ts_us=None if start is None else _adjusted(_microseconds(start, 0), now_us),
        end_ts_us=None if end is None else _adjusted(_microseconds(end, 999), now_us),
    )


def fills_request(
    pairs: Sequence[tuple[str, str]], *, listed: Iterable[str], known: Iterable[str]
) -> RowsRequest:
    """Read the parameters of ``historicalTrades`` (with ``fromId``) or ``trades`` (without).

    Raises:
        RestError: As the venue would answer.
    """
    query = Query(pairs, known=known)
    return RowsRequest(
        symbol=query.symbol(listed), limit=query.limit(), from_id=query.number("fromId")
    )


def exchange_info_symbols(pairs: Sequence[tuple[str, str]], statuses: dict[str, str]) -> list[str]:
    """Read the parameters of ``exchangeInfo`` and return the symbols to describe.

    Args:
        pairs: The query.
        statuses: Every listed symbol with its status.

    Raises:
        RestError: As the venue would answer.
    """
    query = Query(
        pairs, known=("symbol", "symbols", "permissions", "showPermissionSets", "symbolStatus")
    )
    symbol, symbols = query.text("symbol"), query.text("symbols")
    status = query.text("symbolStatus")
    if sum(value is not None for value in (symbol, symbols)) > 1 or (
        status is not None and (symbol is not None or symbols is not None)
    ):
        raise RestError(-1128, "Combination of optional parameters invalid.")
    if symbol is not None:
        return [query.symbol(statuses)]
    if symbols is not None:
        try:
            names = json.loads(symbols)
        except ValueError:
            names = None
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise RestError(
                -1100,
                "Illegal characters found in parameter 'symbols'; legal range is "
                r"'^\[(\"[\w\-._&&[^a-z]]{1,50}\"(,\"[\w\-._&&[^a-z]]{1,50}\"){0,}){0,1}\]$'.",
            )
        return [check_symbol(name, statuses, parameter="symbols") for name in names]
    if status is not None:
        return [name for name, its_status in statuses.items() if its_status == status]
    return list(statuses)


def _microseconds(time: int, rest_of_millisecond: int) -> int:
    return time if time >= 10**14 else time * 1000 + rest_of_millisecond


def _adjusted(ts_us: int, now_us: int) -> int:
    return max(EARLIEST_TS_US, min(ts_us, now_us + AHEAD_MAX_US))
