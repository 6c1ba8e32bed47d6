"""PURE: one WebSocket text frame in, one value out.

Accepts every shape fact-sheet section 5.5 lists: wrapped and bare events, replies, both forms of
errors, ``serverShutdown`` in both shapes. The fast path is one typed decode; only a frame that
fails it is looked at again to say *why*.
"""

from collections.abc import Callable
from typing import Any, Literal

import msgspec

from k2.binance.fields import amount, fills, is_void, timestamp_us, trade_id
from k2.errors import NOT_DECODABLE, RejectError
from k2.market import Origin, Side, StreamKind, Trade


class Reply(msgspec.Struct, frozen=True):
    """The answer to a control message; ``result`` is None, a list or a boolean."""

    request_id: int | str | None
    result: Any


class ErrorReply(msgspec.Struct, frozen=True):
    """A refused control message (match on ``code``, never on the text)."""

    code: int
    message: str
    request_id: int | str | None


class ServerShutdown(msgspec.Struct, frozen=True):
    """The server goes away soon; open a new connection now."""

    event_ts_us: int


Frame = Trade | Reply | ErrorReply | ServerShutdown
Decoder = Callable[[bytes, int], Frame]


class _AggTrade(msgspec.Struct):
    e: Literal["aggTrade"]
    E: int
    s: str
    a: int
    p: str
    q: str
    f: int
    l: int  # noqa: E741 - the venue's own field letter
    T: int
    m: bool
    M: bool | None = None


class _SingleTrade(msgspec.Struct):
    # Captures from before 2024-06-18 also carry the order ids `b` and `a`; unknown fields are fine.
    e: Literal["trade"]
    E: int
    s: str
    t: int
    p: str
    q: str
    T: int
    m: bool
    M: bool | None = None


class _WrappedAggTrade(msgspec.Struct):
    stream: str
    data: _AggTrade


class _WrappedSingleTrade(msgspec.Struct):
    stream: str
    data: _SingleTrade


_WRAPPER = b'{"stream":'


def frame_decoder(kind: StreamKind) -> Decoder:
    """Return the decoder for one stream kind: ``decode(payload, recv_ts_ns) -> Frame``.

    The decoder raises ``RejectError`` whose ``error_type`` is ``parse``, ``missing_field``,
    ``unexpected_type``, ``invalid_field`` or ``void``; nothing else escapes it, whatever the bytes.
    """
    event_type = _AggTrade if kind is StreamKind.AGG_TRADE else _SingleTrade
    wrapped_type = _WrappedAggTrade if kind is StreamKind.AGG_TRADE else _WrappedSingleTrade
    to_trade: Callable[[Any, int], Trade] = (
        _from_agg_trade if kind is StreamKind.AGG_TRADE else _from_single_trade
    )
    decode_bare = msgspec.json.Decoder(event_type).decode
    decode_wrapped = msgspec.json.Decoder(wrapped_type).decode

    def decode(payload: bytes, recv_ts_ns: int) -> Frame:
        try:
            event: Any = (
                decode_wrapped(payload).data  # type: ignore[attr-defined]
                if payload.startswith(_WRAPPER)
                else decode_bare(payload)
            )
        except NOT_DECODABLE:
            event = _explain(payload, event_type)
            if isinstance(event, Reply | ErrorReply | ServerShutdown):
                return event
        return to_trade(event, recv_ts_ns)

    return decode


def original_event(payload: bytes) -> dict[str, Any]:
    """Return the frame for a dead letter: the event without its wrapper, or ``{"_raw": text}``."""
    try:
        parsed = msgspec.json.decode(payload)
    except NOT_DECODABLE:
        return {"_raw": payload.decode("utf-8", errors="replace")}
    event = _unwrap(parsed)
    return event if isinstance(event, dict) else {"_raw": payload.decode("utf-8")}


def _from_agg_trade(event: _AggTrade, recv_ts_ns: int) -> Trade:
    if is_void(price=event.p, quantity=event.q, first_trade_id=event.f):
        raise RejectError(f"Invalid field: a={event.a} is a voided row", error_type="void")
    first, last = fills(first_id=event.f, last_id=event.l)
    return Trade(
        symbol=_symbol(event.s),
        source_id=trade_id(event.a, name="a"),
        price=amount(event.p, name="price"),
        quantity=amount(event.q, name="quantity"),
        first_trade_id=first,
        last_trade_id=last,
        trade_ts_us=timestamp_us(event.T, name="T"),
        event_ts_us=timestamp_us(event.E, name="E"),
        recv_ts_ns=recv_ts_ns,
        taker_side=Side.SELL if event.m else Side.BUY,
        best_match=event.M,
        origin=Origin.STREAM,
    )


def _from_single_trade(event: _SingleTrade, recv_ts_ns: int) -> Trade:
    fill_id = trade_id(event.t, name="t")
    return Trade(
        symbol=_symbol(event.s),
        source_id=fill_id,
        price=amount(event.p, name="price"),
        quantity=amount(event.q, name="quantity"),
        first_trade_id=fill_id,
        last_trade_id=fill_id,
        trade_ts_us=timestamp_us(event.T, name="T"),
        event_ts_us=timestamp_us(event.E, name="E"),
        recv_ts_ns=recv_ts_ns,
        taker_side=Side.SELL if event.m else Side.BUY,
        best_match=event.M,
        origin=Origin.STREAM,
    )


def _symbol(text: str) -> str:
    if not text or len(text) > 64:
        raise RejectError(f"Invalid field: s={text[:80]!r} is not a symbol")
    return text


def _unwrap(parsed: Any) -> Any:
    if isinstance(parsed, dict) and "data" in parsed and "stream" in parsed:
        return parsed["data"]
    return parsed


def _explain(payload: bytes, event_type: type[Any]) -> Any:
    """Return the control value or event in ``payload``, or raise naming what is wrong with it."""
    try:
        parsed = msgspec.json.decode(payload)
    except NOT_DECODABLE as exc:
        raise RejectError(f"Failed to parse message: {exc}", error_type="parse") from exc
    event = _unwrap(parsed)
    if not isinstance(event, dict):
        raise RejectError(
            f"Invalid message: a JSON object was expected, not {type(event).__name__}",
            error_type="unexpected_type",
        )
    if (control := _control(event)) is not None:
        return control
    name = event.get("e")
    expected = event_type.__annotations__["e"].__args__[0]
    if name is None:
        raise RejectError("Missing field in message: e", error_type="missing_field")
    if name != expected:
        raise RejectError(f"Unknown event: e={str(name)[:40]!r}", error_type="unexpected_type")
    for field in event_type.__struct_fields__:
        if field not in event and field != "M":
            noun = {"p": "price", "q": "quantity"}.get(field, f"field {field}")
            raise RejectError(f"Missing {noun} in message", error_type="missing_field")
    try:
        return msgspec.convert(event, event_type)
    except msgspec.ValidationError as exc:
        raise RejectError(f"Invalid field: {exc}", error_type="unexpected_type") from exc


def _control(event: dict[str, Any]) -> Reply | ErrorReply | ServerShutdown | None:
    if event.get("e") == "serverShutdown" and isinstance(event.get("E"), int):
        return ServerShutdown(timestamp_us(event["E"], name="E"))
    nested = event.get("error")
    refused = nested if isinstance(nested, dict) else event
    request_id = event.get("id")
    if isinstance(request_id, (dict, list, float)):
        request_id = None
    if "e" not in event and isinstance(refused.get("code"), int) and "msg" in refused:
        return ErrorReply(refused["code"], str(refused["msg"]), request_id)
    if "e" not in event and "result" in event and "id" in event:
        return Reply(request_id, event["result"])
    return None
