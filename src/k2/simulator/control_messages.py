"""Live control messages of a stream connection: one request text in, state changed, one reply out.

PURE. Source: fact sheet section 4 (Binance spot API docs, "Live Subscribing/Unsubscribing to
streams", checked 2026-11-21).
"""

import json
import re
from enum import Enum
from typing import Any

import msgspec

from k2.simulator.frames import compact_json
from k2.simulator.limits import STREAMS_PER_CONNECTION_MAX

METHODS = ("SUBSCRIBE", "UNSUBSCRIBE", "LIST_SUBSCRIPTIONS", "SET_PROPERTY", "GET_PROPERTY")
REQUEST_BYTES_MAX = 8192
"""436 names in one SUBSCRIBE worked and 437 got no reply (observed 2020): taken as a size cap."""

_ID_TEXT = re.compile(r"[A-Za-z0-9-]{1,36}")  # dashes: official connectors send UUIDs
_INT64 = range(-(2**63), 2**63)


class ErrorShape(Enum):
    """How an error reply is written; both have been seen, a client must accept both."""

    FLAT = "flat"
    NESTED = "nested"


class Subscriptions(msgspec.Struct):
    """What one connection listens to, in the order it asked, and how events are wrapped."""

    combined: bool
    stream_names: dict[str, None] = msgspec.field(default_factory=dict)


class _RefusedError(Exception):
    def __init__(self, code: int, msg: str) -> None:
        super().__init__(msg)
        self.code = code
        self.msg = msg


def answer(text: str, state: Subscriptions, *, shape: ErrorShape) -> str | None:
    """Carry out one request and return the reply, or None where the venue stays silent.

    Unknown and uppercase stream names succeed, and never deliver anything.
    """
    if len(text.encode()) > REQUEST_BYTES_MAX:
        return None
    request_id: Any = None
    try:
        request = _parse(text)
        method = _method(request, text)
        request_id = _request_id(request)
        result = _perform(method, request, state)
    except _RefusedError as refused:
        error: dict[str, Any] = {"code": refused.code, "msg": refused.msg}
        named = {} if request_id is None else {"id": request_id}
        if shape is ErrorShape.NESTED:
            return compact_json({"error": error, **named})
        # The flat form shows an id only for code 0.
        return compact_json({**error, **(named if refused.code == 0 else {})})
    return compact_json({"result": result, "id": request_id})


def _parse(text: str) -> dict[str, Any]:
    try:
        request = json.loads(text)
    except ValueError as exc:
        place = (exc.lineno, exc.colno) if isinstance(exc, json.JSONDecodeError) else (1, 1)
        where = f"line {place[0]} column {place[1]}"
        raise _RefusedError(3, f"Invalid JSON: expected value at {where}") from None
    if not isinstance(request, dict):
        kind = "sequence" if isinstance(request, list) else "value"
        raise _RefusedError(2, f"Invalid request: invalid type: {kind}, expected a request")
    return request


def _method(request: dict[str, Any], text: str) -> str:
    if "method" not in request:
        where = f"line 1 column {len(text)}"
        raise _RefusedError(2, f"Invalid request: missing field `method` at {where}")
    method = request["method"]
    if method not in METHODS:
        expected = ", ".join(f"`{name}`" for name in METHODS)
        column = max(1, text.find(str(method)) + len(str(method)) + 1)
        raise _RefusedError(
            2,
            f"Invalid request: unknown variant {method}, expected one of {expected} "
            f"at line 1 column {column}",
        )
    return str(method)


def _request_id(request: dict[str, Any]) -> int | str | None:
    found = request.get("id", False)
    if found is None or (isinstance(found, str) and _ID_TEXT.fullmatch(found)):
        return found
    if isinstance(found, int) and not isinstance(found, bool) and found in _INT64:
        return found
    raise _RefusedError(2, "Invalid request: request ID must be an unsigned integer")


def _perform(method: str, request: dict[str, Any], state: Subscriptions) -> list[str] | bool | None:
    params = request.get("params", [])
    if not isinstance(params, list):
        raise _RefusedError(2, "Invalid request: params must be a sequence")
    most = {"LIST_SUBSCRIPTIONS": 0, "GET_PROPERTY": 1, "SET_PROPERTY": 2}.get(method)
    if most is not None and len(params) > most:
        raise _RefusedError(2, "Invalid request: too many parameters")
    if method == "LIST_SUBSCRIPTIONS":
        return list(state.stream_names)
    if method in {"SUBSCRIBE", "UNSUBSCRIBE"}:
        if "params" not in request:
            raise _RefusedError(2, "Invalid request: missing field `params`")
        if not all(isinstance(name, str) for name in params):
            raise _RefusedError(2, "Invalid request: stream name must be a string")
        _listen(method, params, state)
        return None
    if not params or not isinstance(params[0], str):
        raise _RefusedError(2, "Invalid request: property name must be a string")
    if params[0] != "combined":
        raise _RefusedError(0, "Unknown property")
    if method == "GET_PROPERTY":
        return state.combined
    if len(params) < 2 or not isinstance(params[1], bool):
        raise _RefusedError(1, "Invalid value type: expected Boolean")
    state.combined = params[1]
    return None


def _listen(method: str, names: list[str], state: Subscriptions) -> None:
    if method == "UNSUBSCRIBE":
        for name in names:
            state.stream_names.pop(name, None)
        return
    wanted = state.stream_names | dict.fromkeys(names)
    if len(wanted) > STREAMS_PER_CONNECTION_MAX:
        raise _RefusedError(4, "Too many subscriptions")
    state.stream_names = wanted
