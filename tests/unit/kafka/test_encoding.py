import io
import json
import struct
from decimal import Decimal, localcontext
from typing import Any

import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2.errors import RejectError, StopError
from k2.kafka import encoding
from k2.kafka.encoding import (
    SCHEMA_TEXT,
    TradeEncoder,
    decode_record,
    message_id,
    parse_schema,
    split_wire,
)
from k2.market import Origin, Side, StreamKind, Symbol, Trade
from k2.tape.arbiter import Placed
from unit.trades import trade

SCHEMA = json.loads(SCHEMA_TEXT)
PARSED = parse_schema(SCHEMA_TEXT)
LISTED = {
    "BTCUSDT": Symbol("BTCUSDT", "BTC", "USDT"),
    "币安人生USDT": Symbol("币安人生USDT", "币安人生", "USDT"),
}

ids = st.integers(0, 2**63 - 1)
# One to 38 digits, ten of them decimals, of any scale up to ten.
amounts = st.builds(
    lambda unscaled, scale: Decimal((0, tuple(map(int, str(unscaled))), -scale)),
    st.integers(1, 10**28 - 1) | st.integers(1, 10**18 - 1),
    st.integers(0, 10),
) | st.just(Decimal("9" * 28 + "." + "9" * 10))
times = st.integers(1_230_768_000 * 10**6, 4_102_444_800 * 10**6 - 1)
placed = st.builds(
    Placed,
    trade=st.builds(
        Trade,
        symbol=st.sampled_from(sorted(LISTED)),
        source_id=ids,
        price=amounts,
        quantity=amounts,
        first_trade_id=ids,
        last_trade_id=ids,
        trade_ts_us=times,
        event_ts_us=st.none() | times,
        recv_ts_ns=ids,
        taker_side=st.sampled_from(Side),
        best_match=st.none() | st.booleans(),
        origin=st.sampled_from(Origin),
    ),
    previous_id=st.none() | ids,
)


def _encoder(kind: StreamKind = StreamKind.AGG_TRADE) -> TradeEncoder:
    return TradeEncoder(schema_id=7, kind=kind, environment="production", symbols=LISTED)


def _as_record(one: Placed, kind: StreamKind) -> dict[str, Any]:
    """Spell the record out by hand, as the data dictionary describes it."""
    trade, symbol = one.trade, LISTED[one.trade.symbol]
    code = {StreamKind.AGG_TRADE: "agg", StreamKind.TRADE: "trade"}[kind]
    return {
        "message_id": f"BINANCE:{trade.symbol}:{code}:{trade.source_id}",
        "venue": "BINANCE",
        "environment": "production",
        "stream_kind": {"agg": "AGG_TRADE", "trade": "TRADE"}[code],
        "symbol": trade.symbol,
        "base_currency": symbol.base_currency,
        "quote_currency": symbol.quote_currency,
        "source_sequence": trade.source_id,
        "previous_id": one.previous_id,
        "first_trade_id": trade.first_trade_id,
        "last_trade_id": trade.last_trade_id,
        "price": trade.price,
        "quantity": trade.quantity,
        "taker_side": trade.taker_side.value,
        "best_match": trade.best_match,
        "trade_ts_us": trade.trade_ts_us,
        "event_ts_us": trade.event_ts_us,
        "recv_ts_ns": trade.recv_ts_ns,
        "origin": trade.origin.value,
    }


def _by_fastavro(record: dict[str, Any], schema: Any) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, schema, record)
    return out.getvalue()


@given(placed, st.sampled_from(StreamKind))
def test_every_byte_is_the_one_fastavro_writes(one: Placed, kind: StreamKind) -> None:
    body = _by_fastavro(_as_record(one, kind), PARSED)
    assert _encoder(kind).encode(one) == b"\x00" + struct.pack(">I", 7) + body


@given(placed)
def test_what_was_encoded_comes_back_exactly(one: Placed) -> None:
    with localcontext(prec=9):
        value = _encoder().encode(one)
    schema_id, body = split_wire(value)
    record = decode_record(body, PARSED)
    assert schema_id == 7
    assert record["price"] == one.trade.price
    assert record["quantity"] == one.trade.quantity
    assert record["symbol"] == one.trade.symbol
    assert record["previous_id"] == one.previous_id


@given(placed, st.permutations(range(len(SCHEMA["fields"]))))
def test_the_schema_alone_says_what_a_record_looks_like(one: Placed, order: list[int]) -> None:
    changed = {**SCHEMA, "fields": [SCHEMA["fields"][at] for at in order]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoding, "SCHEMA_TEXT", json.dumps(changed))
        value = _encoder().encode(one)
    body = _by_fastavro(_as_record(one, StreamKind.AGG_TRADE), fastavro.parse_schema(changed))
    assert value[5:] == body


def _schema_with(monkeypatch: pytest.MonkeyPatch, field: dict[str, Any]) -> None:
    fields = [f for f in SCHEMA["fields"] if f["name"] != field["name"]]
    changed = json.dumps({**SCHEMA, "fields": [*fields, field]})
    monkeypatch.setattr(encoding, "SCHEMA_TEXT", changed)


@pytest.mark.parametrize(
    "field",
    [
        {"name": "colour", "type": "string"},
        {"name": "venue", "type": "float"},
        {"name": "previous_id", "type": ["long", "null"]},
        {"name": "previous_id", "type": ["null", "long", "string"]},
        {
            "name": "price",
            "type": {"type": "bytes", "logicalType": "decimal", "precision": 18, "scale": 8},
        },
    ],
)
def test_a_schema_that_trades_cannot_fill_is_refused_at_start(
    monkeypatch: pytest.MonkeyPatch, field: dict[str, Any]
) -> None:
    _schema_with(monkeypatch, field)
    with pytest.raises(StopError, match=r"trade_v2\.avsc"):
        _encoder()


def test_more_decimals_than_the_schema_holds_are_refused_not_rounded() -> None:
    with pytest.raises(RejectError, match="decimals"):
        _encoder().encode(Placed(trade(1, price="0.12345678901"), None))


def test_a_symbol_nobody_described_is_refused_by_name() -> None:
    with pytest.raises(StopError, match="NOUSDT"):
        _encoder().encode(Placed(trade(1, "NOUSDT"), None))


def test_every_field_of_the_schema_says_what_it_means() -> None:
    assert SCHEMA["doc"]
    for field in SCHEMA["fields"]:
        assert len(field["doc"].split()) >= 3, field["name"]


def test_a_message_id_names_a_trade_the_same_way_every_time() -> None:
    name = message_id(symbol="BTCUSDT", kind=StreamKind.AGG_TRADE, source_id=3712345678)
    assert name == "BINANCE:BTCUSDT:agg:3712345678"


@pytest.mark.parametrize("value", [None, b"", b"\x00\x00\x00\x00", b'{"test": "message"}'])
def test_a_value_without_a_schema_id_is_no_record(value: bytes | None) -> None:
    with pytest.raises(RejectError, match="not an Avro record") as caught:
        split_wire(value)
    assert caught.value.error_type == "serialize"


@given(st.binary(max_size=300))
def test_whatever_the_bytes_a_record_comes_out_or_a_refusal(body: bytes) -> None:
    try:
        record = decode_record(body, PARSED)
    except RejectError:
        return
    assert set(record) == {field["name"] for field in SCHEMA["fields"]}


@given(placed, st.data())
def test_a_damaged_record_is_a_refusal_never_a_crash(one: Placed, data: st.DataObject) -> None:
    _, body = split_wire(_encoder().encode(one))
    at = data.draw(st.integers(0, len(body) - 1))
    damaged = body[:at] + data.draw(st.binary(max_size=12)) + body[at + 1 :]
    for candidate in (body[:at], damaged):
        try:
            decode_record(candidate, PARSED)
        except RejectError:
            continue


def test_a_schema_that_is_not_a_record_gives_no_record() -> None:
    with pytest.raises(RejectError, match="not a record"):
        decode_record(b"\x02a", parse_schema('"string"'))
