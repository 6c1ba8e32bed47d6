from types import SimpleNamespace
from typing import Any

import pytest

from k2.errors import StopError
from k2.kafka import positions
from k2.kafka.connection import KafkaConnection
from k2.kafka.encoding import SCHEMA_TEXT, TradeEncoder, parse_schema
from k2.kafka.position import (
    IDENTITY_KEY,
    POSITION_KEY,
    BackfillRequest,
    Identity,
    ShardPosition,
    ShardRecord,
    SymbolPosition,
    encode_identity,
    encode_position,
    encode_request,
    request_key,
)
from k2.kafka.positions import read_shard, read_tail
from k2.market import StreamKind, Symbol
from k2.tape.arbiter import Placed
from unit.trades import trade

IDENTITY = Identity(
    "BINANCE", "production", "aggTrade", {"t": "id1", "t.gaps": "id2"}, 4, ["币安人生USDT", "X"]
)
Log = list[tuple[bytes | None, bytes | None]]


def _topic(monkeypatch: pytest.MonkeyPatch, log: Log) -> None:
    """Stand in for the partition: what is read is what was written."""

    class Reader:
        def __init__(self, *_where: Any, **_how: Any) -> None: ...

        def read(self, **_more: Any) -> Any:
            for offset, (key, value) in enumerate(log):
                yield SimpleNamespace(
                    key=lambda key=key: key,
                    value=lambda value=value: value,
                    offset=lambda offset=offset: offset,
                    partition=lambda: 0,
                    topic=lambda: "t.positions",
                )

        def ends(self, **_more: Any) -> tuple[int, int]:
            return 0, len(log)

    monkeypatch.setattr(positions, "PartitionReader", Reader)


def _read_shard() -> ShardRecord:
    return read_shard(KafkaConnection("kafka:9092"), positions_topic="t.positions", shard=0)


def _at(next_id: int) -> ShardPosition:
    return ShardPosition({"X": SymbolPosition(next_id, next_id - 1)})


def test_the_last_record_of_each_key_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    _topic(
        monkeypatch,
        [
            (POSITION_KEY, encode_position(_at(5))),
            (IDENTITY_KEY, encode_identity(IDENTITY)),
            (POSITION_KEY, encode_position(_at(9))),
            (b"another key", b"\xff"),
        ],
    )
    assert _read_shard() == ShardRecord(IDENTITY, _at(9))


def test_a_strange_record_that_was_written_over_since_is_repaired(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _topic(monkeypatch, [(POSITION_KEY, b"?"), (POSITION_KEY, encode_position(_at(9)))])
    assert _read_shard() == ShardRecord(None, _at(9))


def test_a_strange_request_costs_that_request_only(monkeypatch: pytest.MonkeyPatch) -> None:
    request = BackfillRequest("X", 3, "r2")
    _topic(
        monkeypatch,
        [
            (POSITION_KEY, encode_position(_at(9))),
            (request_key("r1"), b"?"),
            (request_key("r2"), encode_request(request)),
        ],
    )
    assert _read_shard() == ShardRecord(None, _at(9), (request,))


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


def _record(symbol: str, source_id: int) -> bytes:
    encoder = TradeEncoder(
        schema_id=1,
        kind=StreamKind.AGG_TRADE,
        environment="production",
        symbols={symbol: Symbol(symbol, "A", "B")},
    )
    return encoder.encode(Placed(trade(source_id, symbol), None))


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
    assert read_tail(KafkaConnection("k:1"), trades_topic="t", shard=0, writer_schema=schema) == (
        True,
        {"X": 8, "Y": 3},
    )
    _topic(monkeypatch, [])
    assert read_tail(KafkaConnection("k:1"), trades_topic="t", shard=0, writer_schema=schema) == (
        False,
        {},
    )
