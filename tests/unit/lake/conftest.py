"""What the lake's tests share: trades as Kafka holds them, in a lake on disk."""

import io
import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import fastavro
import pytest
from pyiceberg.catalog import Catalog

from k2.kafka.encoding import SCHEMA_TEXT, parse_schema
from k2.lake.decoding import TradeDecoder
from k2.lake.tables import open_catalog

RecordOf = Callable[..., dict[str, Any]]
ValueOf = Callable[..., bytes]


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return open_catalog(lake_dir=tmp_path / "lake")


@pytest.fixture
def record_of() -> RecordOf:
    """Return a trade's record, with any field replaced."""

    def record(source_id: int = 1, symbol: str = "BTCUSDT", **fields: Any) -> dict[str, Any]:
        return {
            "message_id": f"BINANCE:{symbol}:agg:{source_id}",
            "venue": "BINANCE",
            "environment": "production",
            "stream_kind": "AGG_TRADE",
            "symbol": symbol,
            "base_currency": "BTC",
            "quote_currency": "USDT",
            "source_sequence": source_id,
            "previous_id": source_id - 1 if source_id else None,
            "first_trade_id": source_id,
            "last_trade_id": source_id,
            "price": Decimal("93712.01"),
            "quantity": Decimal("0.0125"),
            "taker_side": "SELL",
            "best_match": True,
            "trade_ts_us": 1_767_225_600_122_000 + source_id,
            "event_ts_us": None,
            "recv_ts_ns": 1_767_225_600_200_000_000,
            "origin": "STREAM",
            **fields,
        }

    return record


@pytest.fixture
def value_of(record_of: RecordOf) -> ValueOf:
    """Return a trade's record value as the topic holds it: magic, schema id 1, Avro body."""
    schema = parse_schema(SCHEMA_TEXT)

    def value(source_id: int = 1, symbol: str = "BTCUSDT", **fields: Any) -> bytes:
        out = io.BytesIO()
        fastavro.schemaless_writer(out, schema, record_of(source_id, symbol, **fields))
        return b"\x00\x00\x00\x00\x01" + out.getvalue()

    return value


@pytest.fixture
def gap_value() -> ValueOf:
    """Return a gap record's value as the topic holds it, with any field added."""

    def value(first_id: int, last_id: int, symbol: str = "BTCUSDT", **fields: Any) -> bytes:
        gap = {
            "symbol": symbol,
            "first_id": first_id,
            "last_id": last_id,
            "class": "missing",
            "reason": "",
            "declared_ts_us": 1_767_225_600_000_000,
            **fields,
        }
        return json.dumps(gap).encode()

    return value


@pytest.fixture
def decoder() -> TradeDecoder:
    """Return a decoder over a registry that knows schema id 1."""
    return TradeDecoder({1: SCHEMA_TEXT}.get, reader_schema_text=SCHEMA_TEXT)
