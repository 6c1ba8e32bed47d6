"""PURE: REST replies in, values out. Rows that cannot be used keep their id and say why."""

from collections.abc import Iterable
from typing import Any

import msgspec

from k2.binance.fields import amount, fills, is_void, timestamp_us, trade_id
from k2.errors import NOT_DECODABLE, RejectError, RetryError
from k2.market import BadRow, Origin, Side, StreamKind, Symbol, Trade


class _AggRow(msgspec.Struct):
    a: int
    p: str
    q: str
    f: int
    l: int  # noqa: E741 - the venue's own field letter
    T: int
    m: bool
    M: bool | None = None


class _FillRow(msgspec.Struct, rename="camel"):
    id: int
    price: str
    qty: str
    time: int
    is_buyer_maker: bool
    is_best_match: bool | None = None


class _Listing(msgspec.Struct, rename="camel"):
    symbol: str
    base_asset: str
    quote_asset: str
    status: str = ""


class _ExchangeInfo(msgspec.Struct):
    symbols: list[_Listing]


class _Time(msgspec.Struct, rename="camel"):
    server_time: int


class _AggRowId(msgspec.Struct):
    a: int


class _FillRowId(msgspec.Struct):
    id: int


_decode_raws = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_agg_rows = msgspec.json.Decoder(list[_AggRow]).decode
_decode_fill_rows = msgspec.json.Decoder(list[_FillRow]).decode
_decode_exchange_info = msgspec.json.Decoder(_ExchangeInfo).decode
_decode_time = msgspec.json.Decoder(_Time).decode


def decode_rows(
    body: bytes, *, kind: StreamKind, symbol: str, recv_ts_ns: int
) -> list[Trade | BadRow]:
    """Decode one page of ``aggTrades`` or ``historicalTrades``, ascending by id.

    Raises:
        RetryError: If the body is not a page of rows with ids (a proxy's page, a cut reply).
    """
    row_type: type[Any] = _AggRow if kind is StreamKind.AGG_TRADE else _FillRow
    decode = _decode_agg_rows if kind is StreamKind.AGG_TRADE else _decode_fill_rows
    originals: Iterable[Any]
    try:
        originals = decode(body)
    except NOT_DECODABLE:
        try:
            originals = _decode_raws(body)
        except NOT_DECODABLE as exc:
            raise RetryError(f"REST answered something that is not rows: {body[:120]!r}") from exc
    return [_row(row, row_type, symbol=symbol, recv_ts_ns=recv_ts_ns) for row in originals]


def decode_symbols(body: bytes, *, names: Iterable[str]) -> dict[str, Symbol]:
    """Return the listed symbols among ``names``, with the assets the exchange states."""
    try:
        listings = _decode_exchange_info(body).symbols
    except NOT_DECODABLE as exc:
        raise RetryError(f"REST answered something that is not exchangeInfo: {exc}") from exc
    wanted = set(names)
    return {
        row.symbol: Symbol(row.symbol, row.base_asset, row.quote_asset)
        for row in listings
        if row.symbol in wanted
    }


def decode_quoted_in(body: bytes, *, quotes: Iterable[str]) -> set[str]:
    """Return the names of symbols that trade against one of these assets."""
    try:
        listings = _decode_exchange_info(body).symbols
    except NOT_DECODABLE as exc:
        raise RetryError(f"REST answered something that is not exchangeInfo: {exc}") from exc
    wanted = set(quotes)
    return {row.symbol for row in listings if row.quote_asset in wanted and row.status == "TRADING"}


def decode_time(body: bytes) -> int:
    """Return the exchange's clock, in microseconds since the epoch."""
    try:
        return timestamp_us(_decode_time(body).server_time, name="serverTime")
    except (*NOT_DECODABLE, RejectError) as exc:
        raise RetryError(f"REST answered something that is not a time: {exc}") from exc


def _row(row: Any, row_type: type[Any], *, symbol: str, recv_ts_ns: int) -> Trade | BadRow:
    if isinstance(row, msgspec.Raw):
        source_id = _id_of(row, row_type)
        try:
            original = msgspec.json.decode(row)
        except NOT_DECODABLE as exc:
            raw = bytes(row).decode("utf-8", errors="replace")
            return BadRow(source_id, "parse", f"Failed to parse message: {exc}", {"_raw": raw})
        try:
            row = msgspec.convert(original, row_type)
        except msgspec.ValidationError as exc:
            said = {**original, "s": symbol}
            return BadRow(source_id, "unexpected_type", f"Invalid field: {exc}", said)
    if isinstance(row, _AggRow):
        fields = (row.a, row.p, row.q, row.f, row.l, row.T, row.m, row.M)
    else:
        fields = (
            *(row.id, row.price, row.qty, row.id, row.id),
            *(row.time, row.is_buyer_maker, row.is_best_match),
        )
    source_id, price, quantity, first, last, time, buyer_is_maker, best_match = fields
    try:
        if is_void(price=price, quantity=quantity, first_trade_id=first):
            raise RejectError("Invalid field: the exchange voided this row", error_type="void")
        first, last = fills(first_id=first, last_id=last)
        return Trade(
            symbol=symbol,
            source_id=trade_id(source_id, name="id"),
            price=amount(price, name="price"),
            quantity=amount(quantity, name="quantity"),
            first_trade_id=first,
            last_trade_id=last,
            trade_ts_us=timestamp_us(time, name="T"),
            event_ts_us=None,
            recv_ts_ns=recv_ts_ns,
            taker_side=Side.SELL if buyer_is_maker else Side.BUY,
            best_match=best_match,
            origin=Origin.HEALED,
        )
    except RejectError as exc:
        original = {**msgspec.to_builtins(row), "s": symbol}
        return BadRow(source_id, exc.error_type, str(exc), original)


def _id_of(row: msgspec.Raw, row_type: type[Any]) -> int:
    """Return the id of a row whose other fields may be anything."""
    id_type = _AggRowId if row_type is _AggRow else _FillRowId
    try:
        found: Any = msgspec.json.decode(row, type=id_type)
    except NOT_DECODABLE as exc:
        raise RetryError(f"REST answered a row without an id: {bytes(row)[:120]!r}") from exc
    return int(found.a if row_type is _AggRow else found.id)
