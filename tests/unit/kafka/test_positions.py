import json
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import TopicPartition
from hypothesis import given
from hypothesis import strategies as st

from k2.errors import StopError
from k2.kafka import positions
from k2.kafka.encoding import SCHEMA_TEXT, TradeEncoder, parse_schema
from k2.kafka.gap_records import encode_gap
from k2.kafka.position import (
    IDENTITY_KEY,
    POSITION_KEY,
    Identity,
    ShardRecord,
    SymbolPosition,
    encode_identity,
    encode_position,
)
from k2.kafka.positions import read_gaps, read_shard, read_tail
from k2.market import Gap, GapClass, IdRange, Origin, Side, StreamKind, Symbol, Trade
from k2.tape.arbiter import Placed

IDENTITY = Identity(
    "BINANCE", "production", "aggTrade", {"t": "id1", "t.gaps": "id2"}, 4, ["币安人生USDT", "X"]
)
Log = list[tuple[bytes | None, bytes | None]]


def _topic(monkeypatch: pytest.MonkeyPatch, log: Log) -> None:
    """Stand in for the partition: what is read is what was written."""

    def read(_bootstrap: str, _partition: TopicPartition, **_more: Any) -> Any:
        for offset, (key, value) in enumerate(log):
            yield SimpleNamespace(
                key=lambda key=key: key,
                value=lambda value=value: value,
                offset=lambda offset=offset: offset,
            )

    monkeypatch.setattr(positions, "_read", read)
    monkeypatch.setattr(positions, "_watermarks", lambda *_a, **_k: (0, len(log)))


def _read_shard() -> ShardRecord:
    return read_shard("kafka:9092", positions_topic="t.positions", shard=0)


@given(
    st.dictionaries(
        st.text(min_size=1, max_size=8),
        st.builds(
            SymbolPosition,
            next_id=st.integers(0, 2**63),
            last_id=st.none() | st.integers(0, 2**63 - 1),
        ),
        max_size=5,
    )
)
def test_a_position_comes_back_as_it_was_written(position: dict[str, SymbolPosition]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        _topic(patch, [(POSITION_KEY, encode_position(position))])
        assert _read_shard() == ShardRecord(None, position)


def test_the_last_record_of_each_key_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = {"X": SymbolPosition(5, 4)}, {"X": SymbolPosition(9, 7)}
    _topic(
        monkeypatch,
        [
            (POSITION_KEY, encode_position(old)),
            (IDENTITY_KEY, encode_identity(IDENTITY)),
            (POSITION_KEY, encode_position(new)),
            (b"another key", b"\xff"),
        ],
    )
    assert _read_shard() == ShardRecord(IDENTITY, new)


def test_an_empty_topic_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    _topic(monkeypatch, [])
    assert _read_shard() == ShardRecord(None, None)


@pytest.mark.parametrize(
    "value", [None, b"", b"{}", b"[]", b'{"symbols":{"X":{"next_id":"5"}}}', b'{"symbols":{"\xff"']
)
@pytest.mark.parametrize("key", [POSITION_KEY, IDENTITY_KEY])
def test_a_record_that_is_not_ours_is_refused_with_its_offset_and_the_repair(
    monkeypatch: pytest.MonkeyPatch, key: bytes, value: bytes | None
) -> None:
    _topic(monkeypatch, [(key, value)])
    with pytest.raises(StopError, match=r"offset 0 .*k2 positions rebuild --from-topic"):
        _read_shard()


def test_a_position_is_json_an_operator_can_read() -> None:
    value = encode_position({"X": SymbolPosition(5, None), "A": SymbolPosition(2, 1)})
    assert json.loads(value) == {
        "symbols": {"A": {"next_id": 2, "last_id": 1}, "X": {"next_id": 5, "last_id": None}}
    }
    assert value == encode_position({"A": SymbolPosition(2, 1), "X": SymbolPosition(5, None)})


def _record(symbol: str, source_id: int) -> bytes:
    encoder = TradeEncoder(
        schema_id=1,
        kind=StreamKind.AGG_TRADE,
        environment="production",
        symbols={symbol: Symbol(symbol, "A", "B")},
    )
    trade = Trade(
        symbol=symbol,
        source_id=source_id,
        price=Decimal(1),
        quantity=Decimal(1),
        first_trade_id=1,
        last_trade_id=1,
        trade_ts_us=1,
        event_ts_us=None,
        recv_ts_ns=1,
        taker_side=Side.BUY,
        best_match=None,
        origin=Origin.STREAM,
    )
    return encoder.encode(Placed(trade, None))


def test_the_tail_is_the_last_id_of_each_symbol_whatever_lies_between(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log: Log = [
        (b"X", _record("X", 7)),
        (None, b'{"test": "message"}'),
        (b"Y", _record("Y", 3)),
        (b"X", _record("X", 8)),
        (b"X", None),
        (b"X", b"\x00\x00\x00\x00\x01cut"),
    ]
    _topic(monkeypatch, log)
    schema = parse_schema(SCHEMA_TEXT)
    assert read_tail("k", trades_topic="t", shard=0, writer_schema=schema) == (
        True,
        {"X": 8, "Y": 3},
    )
    _topic(monkeypatch, [])
    assert read_tail("k", trades_topic="t", shard=0, writer_schema=schema) == (False, {})


def test_declared_gaps_are_read_back_and_strange_records_passed_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gap = Gap("X", IdRange(3, 5), GapClass.MISSING, "REST lacked it")
    log: Log = [
        (b"X", encode_gap(gap, declared_ts_us=1_767_225_600_000_000)),
        (None, b"\xff"),
        (b"X", None),
        (b"X", b"{}"),
    ]
    _topic(monkeypatch, log)
    assert read_gaps("k", gaps_topic="t.gaps", shard=0) == [("X", IdRange(3, 5))]
