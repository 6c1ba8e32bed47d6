"""Avro bytes of a trade, derived from ``trade_v2.avsc``; and back, by the reference library.

The encoder is built from the schema once: a chain of small functions, one per field, so that the
schema stays the only place that says what a record looks like. fastavro decodes, and is what the
tests compare every byte with.
"""

import io
import json
from collections.abc import Callable, Mapping
from decimal import Context, Decimal
from importlib import resources
from typing import Any

import fastavro

from k2.errors import RejectError, StopError
from k2.market import DECIMAL_PRECISION, DECIMAL_SCALE, Side, StreamKind, Symbol
from k2.tape.arbiter import Placed

VENUE = "BINANCE"
SCHEMA_TEXT = resources.files("k2.kafka").joinpath("trade_v2.avsc").read_text("utf-8")
"""The reviewed schema, as registered."""

_WIRE_MAGIC = b"\x00"
_WIRE_HEADER_BYTES = 5  # magic byte, then the schema id as four bytes, big-endian

# The default context would round to 28 digits on the way.
_EXACT = Context(prec=2 * DECIMAL_PRECISION)

_PAIR = 1 << 14
_ONE_BYTE = [bytes([number]) for number in range(0x80)]
_PAIRS = [bytes([number & 0x7F | 0x80, number >> 7 | 0x80]) for number in range(_PAIR)]
_LAST_PAIRS = [bytes([number & 0x7F | 0x80, number >> 7]) for number in range(_PAIR)]

Encode = Callable[[Any], bytes]


def message_id(*, symbol: str, kind: StreamKind, source_id: int) -> str:
    """Return the deterministic name of a trade: ``BINANCE:BTCUSDT:agg:3712345678``."""
    return f"{VENUE}:{symbol}:{kind.code}:{source_id}"


class TradeEncoder:
    """Turn placed trades into Confluent-framed Avro (magic 0, schema id, body).

    What depends on the symbol alone is encoded once per symbol.
    """

    def __init__(
        self,
        *,
        schema_id: int,
        kind: StreamKind,
        environment: str,
        symbols: Mapping[str, Symbol],
    ) -> None:
        """Prepare one encoder per field of the schema.

        Raises:
            StopError: If the schema asks for something no trade has.
        """
        self._header = _WIRE_MAGIC + schema_id.to_bytes(4, "big")
        self._symbols = symbols
        self._plans: dict[str, list[bytes | Callable[[Placed], bytes]]] = {}
        of_symbol = _symbol_getters(kind=kind, environment=environment)
        of_trade = _trade_getters(kind=kind)
        self._fields: list[tuple[Any, Any, Encode]] = []
        for field in json.loads(SCHEMA_TEXT)["fields"]:
            name = field["name"]
            if name not in of_symbol and name not in of_trade:
                raise StopError(f"trade_v2.avsc has a field no trade fills: {name!r}")
            try:
                encode = _encoder(field["type"])
            except KeyError as exc:
                raise StopError(f"trade_v2.avsc has a field no trade fills: {name!r}") from exc
            self._fields.append((of_symbol.get(name), of_trade.get(name), encode))

    def encode(self, placed: Placed) -> bytes:
        """Return the record value of one trade.

        Raises:
            StopError: If nobody said what its symbol is made of: only what is carried is written.
        """
        plan = self._plans.get(placed.trade.symbol) or self._plan(placed.trade.symbol)
        return b"".join([part if part.__class__ is bytes else part(placed) for part in plan])  # type: ignore[operator]

    def _plan(self, name: str) -> list[bytes | Callable[[Placed], bytes]]:
        """Return a symbol's record: bytes that are always the same, and what encodes the rest."""
        if (symbol := self._symbols.get(name)) is None:
            raise StopError(
                f"{name} is not recorded by this process, and a trade of it was to be written: "
                f"record it again (`k2 symbols add {name}`), and report this"
            )
        plan: list[bytes | Callable[[Placed], bytes]] = [self._header]
        for of_symbol, of_trade, encode in self._fields:
            if of_symbol is None:
                plan.append(_field(of_trade, encode))
                continue
            fixed = encode(of_symbol(symbol))
            if isinstance(plan[-1], bytes):
                plan[-1] += fixed
            else:
                plan.append(fixed)
        self._plans[name] = plan
        return plan


def _field(get: Callable[[Placed], Any], encode: Encode) -> Callable[[Placed], bytes]:
    return lambda placed: encode(get(placed))


def parse_schema(schema_text: str) -> Any:
    """Return a schema as fastavro wants it."""
    return fastavro.parse_schema(json.loads(schema_text))


def split_wire(value: bytes | None) -> tuple[int, bytes]:
    """Return (schema id, Avro body) of a record value.

    Raises:
        RejectError: If the value is not in Confluent's wire format (a tombstone, plain JSON).
    """
    if value is None or len(value) < _WIRE_HEADER_BYTES or value[:1] != _WIRE_MAGIC:
        raise RejectError("not an Avro record: no schema id in front", error_type="serialize")
    return int.from_bytes(value[1:_WIRE_HEADER_BYTES], "big"), value[_WIRE_HEADER_BYTES:]


def decode_record(body: bytes, writer_schema: Any) -> dict[str, Any]:
    """Decode one Avro body with fastavro, the reference.

    Raises:
        RejectError: If the bytes do not fit the schema they name.
    """
    try:
        record = fastavro.schemaless_reader(io.BytesIO(body), writer_schema, None)
    except (ValueError, EOFError, IndexError, KeyError, OverflowError, TypeError) as exc:
        raise RejectError(f"Avro body does not fit: {exc!r}", error_type="serialize") from exc
    if not isinstance(record, dict):
        raise RejectError("Avro value is not a record", error_type="serialize")
    return record


def _symbol_getters(*, kind: StreamKind, environment: str) -> dict[str, Callable[[Symbol], Any]]:
    """Say where the value of a field comes from that is the same for all trades of a symbol."""
    return {
        "venue": lambda _s: VENUE,
        "environment": lambda _s: environment,
        "stream_kind": lambda _s: kind.name,
        "symbol": lambda s: s.name,
        "base_currency": lambda s: s.base_currency,
        "quote_currency": lambda s: s.quote_currency,
    }


def _trade_getters(*, kind: StreamKind) -> dict[str, Callable[[Placed], Any]]:
    """Say where the value of every other field comes from."""
    return {
        "message_id": lambda p: message_id(
            symbol=p.trade.symbol, kind=kind, source_id=p.trade.source_id
        ),
        "source_sequence": lambda p: p.trade.source_id,
        "previous_id": lambda p: p.previous_id,
        "first_trade_id": lambda p: p.trade.first_trade_id,
        "last_trade_id": lambda p: p.trade.last_trade_id,
        "price": lambda p: p.trade.price,
        "quantity": lambda p: p.trade.quantity,
        "taker_side": lambda p: "BUY" if p.trade.taker_side is Side.BUY else "SELL",
        "best_match": lambda p: p.trade.best_match,
        "trade_ts_us": lambda p: p.trade.trade_ts_us,
        "event_ts_us": lambda p: p.trade.event_ts_us,
        "recv_ts_ns": lambda p: p.trade.recv_ts_ns,
        "origin": lambda p: p.trade.origin.value,
    }


def _encoder(avro_type: Any) -> Encode:
    """Return the function that encodes one value of an Avro type (specification 1.12)."""
    if isinstance(avro_type, list):
        return _nullable(avro_type)
    if isinstance(avro_type, dict):
        if avro_type["type"] == "enum":
            indexes = {name: _long(index) for index, name in enumerate(avro_type["symbols"])}
            return indexes.__getitem__
        if avro_type.get("logicalType") == "decimal":
            if (avro_type["precision"], avro_type["scale"]) != (DECIMAL_PRECISION, DECIMAL_SCALE):
                raise StopError("trade_v2.avsc and k2.market disagree about the decimals")
            return _decimal
        return _encoder(avro_type["type"])
    encoders: dict[str, Encode] = {"string": _string, "long": _long, "boolean": _boolean}
    return encoders[avro_type]


def _nullable(avro_type: list[Any]) -> Encode:
    if len(avro_type) != 2 or avro_type[0] != "null":
        raise StopError(f"trade_v2.avsc: only unions of null and one type are used: {avro_type}")
    null, branch = _long(0), _long(1)
    encode = _encoder(avro_type[1])
    return lambda value: null if value is None else branch + encode(value)


def _long(value: int) -> bytes:
    zigzag = (value << 1) ^ (value >> 63)
    out = b""
    # Seven bits to a byte, lowest first, all but the last marked as having a successor; two bytes
    # at a time by table.
    while zigzag >= _PAIR:
        out += _PAIRS[zigzag & _PAIR - 1]
        zigzag >>= 14
    return out + (_ONE_BYTE[zigzag] if zigzag < 0x80 else _LAST_PAIRS[zigzag])


def _string(value: str) -> bytes:
    raw = value.encode()
    return _long(len(raw)) + raw


def _boolean(value: bool) -> bytes:
    return b"\x01" if value else b"\x00"


def _decimal(value: Decimal) -> bytes:
    scaled = value.scaleb(DECIMAL_SCALE, _EXACT)
    unscaled = int(scaled)
    if unscaled != scaled:
        raise RejectError(f"{value} has more than {DECIMAL_SCALE} decimals", error_type="serialize")
    raw = unscaled.to_bytes((unscaled.bit_length() + 8) // 8, "big", signed=True)
    return _long(len(raw)) + raw
