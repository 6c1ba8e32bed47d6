"""What ``k2 tail`` makes of a record: a trade, or why it is none."""

import io
import re
from decimal import Decimal
from typing import Any, NamedTuple

import fastavro
import pytest

from k2.kafka.encoding import SCHEMA_TEXT, parse_schema
from k2.kafka.registry import Registry
from k2.kafka.tail import decoded

TRADE = {
    "message_id": "BINANCE:BTCUSDT:agg:7",
    "venue": "BINANCE",
    "environment": "production",
    "stream_kind": "AGG_TRADE",
    "symbol": "BTCUSDT",
    "base_currency": "BTC",
    "quote_currency": "USDT",
    "source_sequence": 7,
    "previous_id": 6,
    "first_trade_id": 7,
    "last_trade_id": 7,
    "price": Decimal("93712.01"),
    "quantity": Decimal("0.0125"),
    "taker_side": "SELL",
    "best_match": True,
    "trade_ts_us": 1_767_225_600_122_000,
    "event_ts_us": None,
    "recv_ts_ns": 1_767_225_600_200_000_000,
    "origin": "STREAM",
}
SCHEMAS = {
    1: SCHEMA_TEXT,
    2: '{"type":"record","name":"X","fields":[{"name":"a","type":"long"}]}',
    3: '"string"',
    4: 'syntax = "proto3";',
    5: '{"type":"record"}',
    6: "7",
    7: "{}",
    8: "[" * 100_000,
    9: '{"type":"record","name":"X","fields":[{"name":"price","type":"string"}]}',
}


class Known(Registry):
    """A registry that holds ``SCHEMAS``."""

    def __init__(self) -> None:
        super().__init__("http://nowhere")

    def schema_text(self, schema_id: int) -> str | None:
        """Answer from memory."""
        return SCHEMAS.get(schema_id)


class Message(NamedTuple):
    """A record of the topic."""

    held: bytes | None

    def value(self) -> bytes | None:
        """Return what it holds."""
        return self.held

    def offset(self) -> int:
        """Return where it is."""
        return 41


def of(schema_id: int, body: bytes) -> Message:
    return Message(b"\0" + schema_id.to_bytes(4, "big") + body)


def trade(**fields: Any) -> Message:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, parse_schema(SCHEMA_TEXT), TRADE | fields)
    return of(1, out.getvalue())


def test_a_trade_is_told_with_its_fields() -> None:
    found = decoded(trade(), Known(), {})
    assert (found["symbol"], found["source_sequence"]) == ("BTCUSDT", 7)
    assert found["price"] == Decimal("93712.01")


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (Message(None), "not an Avro record"),
        (Message(b""), "not an Avro record"),
        (of(99, b"x"), "schema id 99 is unknown"),
        (of(2, b"\x02"), "no trade: it has no trade_ts_us, symbol,"),
        (of(3, b"\x02a"), "not a record"),
        (of(4, b"\x02"), "schema id 4 is no Avro schema"),
        (of(5, b"\x02"), "schema id 5 is no Avro schema"),
        (of(6, b"\x02"), "schema id 6 is no Avro schema"),
        (of(7, b"\x02"), "schema id 7 is no Avro schema"),
        (of(8, b"\x02"), "schema id 8 is no Avro schema"),
        (of(9, b"\x021"), "no trade: it has no trade_ts_us, .*price"),
        (trade(trade_ts_us=2**62), "does not fit"),
    ],
)
def test_anything_else_is_told_with_its_offset_and_why(message: Message, why: str) -> None:
    found = decoded(message, Known(), {})
    assert found.keys() == {"offset", "error", "raw"}
    assert found["offset"] == 41
    assert re.search(why, found["error"])
