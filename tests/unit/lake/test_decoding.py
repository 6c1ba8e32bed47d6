import io
import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import fastavro
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from k2.errors import RetryError
from k2.kafka.encoding import SCHEMA_TEXT
from k2.kafka.gap_records import encode_gap, encode_repaired
from k2.lake.decoding import GAPS_ARROW, SCHEMAS_MAX, TRADES_ARROW, GapDecoder, TradeDecoder
from k2.market import Gap, GapClass, IdRange
from k2.tape.coverage import Coverage

ValueOf = Callable[..., bytes]
RecordOf = Callable[..., dict[str, Any]]
SCHEMA = json.loads(SCHEMA_TEXT)


def _ids(rows: Any) -> list[tuple[str, int]]:
    return list(
        zip(
            rows.column("symbol").to_pylist(), rows.column("source_sequence").to_pylist(),
            strict=True,
        )
    )  # fmt: skip


def _with_schema(schema: Any, record: Any, schema_id: int = 2) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(schema), record)
    return b"\x00" + schema_id.to_bytes(4, "big") + out.getvalue()


def test_rows_come_sorted_by_symbol_and_id_in_the_tables_columns(
    decoder: TradeDecoder, value_of: ValueOf
) -> None:
    values = [value_of(3), value_of(2, "ADA"), value_of(1), value_of(1, "ADA")]
    decoded = decoder.decode(values, Coverage())
    assert _ids(decoded.rows) == [("ADA", 1), ("ADA", 2), ("BTCUSDT", 1), ("BTCUSDT", 3)]
    assert decoded.rows.schema == TRADES_ARROW
    assert decoded.coverage.as_pairs() == {"ADA": [(1, 2)], "BTCUSDT": [(1, 1), (3, 3)]}
    assert (decoded.undecodable, decoded.repeated) == ([], [])


def test_every_digit_and_every_microsecond_arrives(
    decoder: TradeDecoder, value_of: ValueOf
) -> None:
    price = Decimal("1234567890123456789012345678.0123456789")
    value = value_of(1, price=price, event_ts_us=1_767_225_600_123_457)
    (row,) = decoder.decode([value], Coverage()).rows.to_pylist()
    assert str(row["price"]) == str(price)
    assert row["event_ts_us"].isoformat() == "2026-01-01T00:00:00.123457+00:00"


def test_an_id_the_table_holds_already_is_left_out_and_reported(
    decoder: TradeDecoder, value_of: ValueOf
) -> None:
    held = Coverage({"BTCUSDT": [(1, 5)]})
    decoded = decoder.decode([value_of(5), value_of(6), value_of(6)], held)
    assert _ids(decoded.rows) == [("BTCUSDT", 6)]
    assert decoded.repeated == ["BINANCE:BTCUSDT:agg:5", "BINANCE:BTCUSDT:agg:6"]
    assert held.as_pairs() == {"BTCUSDT": [(1, 5)]}


def _strange(kind: str, value_of: ValueOf, record_of: RecordOf) -> bytes | None:
    good = value_of(2)
    if kind == "other record":
        schema = {"type": "record", "name": "N", "fields": [{"name": "a", "type": "long"}]}
        return _with_schema(schema, {"a": 1}, 3)
    if kind == "too wide":
        fields = [
            {**f, "type": {**f["type"], "precision": 60}} if f["name"] == "price" else f
            for f in SCHEMA["fields"]
        ]
        wide = record_of(2, price=Decimal("1" * 45))
        return _with_schema({**SCHEMA, "fields": fields}, wide, 4)
    return {
        "tombstone": None,
        "empty": b"",
        "console producer": b'{"test": "message"}',
        "magic only": b"\x00",
        "unknown schema": b"\x00\x00\x00\x00\x63" + good[5:],
        "cut": good[:-9],
        "body only zeros": b"\x00\x00\x00\x00\x01" + b"\x00" * 60,
        "a number": b"\x00\x00\x00\x00\x05\x02",
        "protobuf": b"\x00\x00\x00\x00\x06\x02",
        "json schema": b"\x00\x00\x00\x00\x07\x02",
        "nested schema": b"\x00\x00\x00\x00\x08\x02",
        "nested json": b"\x00\x00\x00\x00\x09\x02",
        "negative id": value_of(2, source_sequence=-5),
        "time beyond the calendar": value_of(2, trade_ts_us=253_402_300_800 * 10**6),
        "event beyond the calendar": value_of(2, event_ts_us=2**63 - 1),
        "time before the epoch": value_of(2, trade_ts_us=-(2**63)),
    }[kind]


WIDE = json.dumps(
    {
        **SCHEMA,
        "fields": [
            {**f, "type": {**f["type"], "precision": 60}} if f["name"] == "price" else f
            for f in SCHEMA["fields"]
        ],
    }
)
REGISTRY: dict[int, str] = {
    1: SCHEMA_TEXT,
    3: '{"type":"record","name":"N","fields":[{"name":"a","type":"long"}]}',
    4: WIDE,
    5: '"long"',
    6: 'syntax = "proto3"; message M {}',
    7: '{"$schema":"http://json-schema.org/draft-07/schema#","type":"object"}',
    8: '{"type":' * 5_000 + '"long"' + "}" * 5_000,
    9: "[" * 100_000,
}


@pytest.mark.parametrize(
    "kind",
    ["tombstone", "empty", "console producer", "magic only", "unknown schema", "cut",
     "other record", "a number", "protobuf", "json schema", "nested schema", "nested json",
     "negative id", "too wide",
     "time beyond the calendar", "event beyond the calendar", "time before the epoch"],
)  # fmt: skip
def test_a_strange_record_is_handed_back_and_keeps_its_neighbours(
    kind: str, value_of: ValueOf, record_of: RecordOf
) -> None:
    decoder = TradeDecoder(REGISTRY.get, reader_schema_text=SCHEMA_TEXT)
    strange = _strange(kind, value_of, record_of)
    decoded = decoder.decode([value_of(1), strange, value_of(3)], Coverage())
    assert _ids(decoded.rows) == [("BTCUSDT", 1), ("BTCUSDT", 3)]
    (bad,) = decoded.undecodable
    assert bad.value == (strange or b"")
    assert bad.error_type == "serialize"
    assert decoded.coverage.as_pairs() == {"BTCUSDT": [(1, 1), (3, 3)]}


def test_only_so_many_schemas_are_kept_ready(value_of: ValueOf) -> None:
    asked: list[int] = []

    def schema_text(schema_id: int) -> str:
        asked.append(schema_id)
        return SCHEMA_TEXT

    decoder = TradeDecoder(schema_text, reader_schema_text=SCHEMA_TEXT)
    value = value_of(1)
    for schema_id in (1, 2, 1, *range(3, SCHEMAS_MAX + 2), 1, 2):
        decoder.decode([value[:1] + schema_id.to_bytes(4, "big") + value[5:]], Coverage())
    assert decoder.schemas == SCHEMAS_MAX
    assert decoder.evictions == 2
    assert asked.count(1) == 1, "used again in time"
    assert asked.count(2) == 2, "the one used longest ago made room"


@pytest.mark.parametrize("kind", ["too wide", "console producer"])
def test_strange_records_that_are_alike_are_each_handed_back(
    kind: str, value_of: ValueOf, record_of: RecordOf
) -> None:
    decoder = TradeDecoder(REGISTRY.get, reader_schema_text=SCHEMA_TEXT)
    strange = _strange(kind, value_of, record_of)
    decoded = decoder.decode([strange, value_of(1), strange], Coverage())
    assert [one.value for one in decoded.undecodable] == [strange, strange]
    assert (decoded.rows.num_rows, decoded.repeated) == (1, [])


def test_a_row_that_does_not_fit_leaves_its_id_to_one_that_does(
    value_of: ValueOf, record_of: RecordOf
) -> None:
    decoder = TradeDecoder(REGISTRY.get, reader_schema_text=SCHEMA_TEXT)
    wide = _strange("too wide", value_of, record_of)
    decoded = decoder.decode([wide, value_of(2)], Coverage())
    assert _ids(decoded.rows) == [("BTCUSDT", 2)]
    assert (len(decoded.undecodable), decoded.repeated) == (1, [])


def test_an_evolved_writer_schema_is_resolved_to_the_tables(record_of: RecordOf) -> None:
    kept = [f for f in SCHEMA["fields"] if f["name"] != "best_match"]
    newer = {
        **SCHEMA,
        "fields": [{"name": "colour", "type": "string", "default": ""}, *reversed(kept)],
    }
    value = _with_schema(newer, {**record_of(4), "colour": "green"})
    decoder = TradeDecoder({2: json.dumps(newer)}.get, reader_schema_text=SCHEMA_TEXT)
    decoded = decoder.decode([value], Coverage())
    assert decoded.undecodable == []
    (row,) = decoded.rows.to_pylist()
    assert (row["source_sequence"], row["best_match"]) == (4, None)
    assert row["price"] == Decimal("93712.01")


def test_a_registry_that_is_away_stops_the_batch_not_the_record(value_of: ValueOf) -> None:
    asked: list[int] = []

    def away(schema_id: int) -> str | None:
        asked.append(schema_id)
        if len(asked) == 1:
            raise RetryError("registry away")
        return SCHEMA_TEXT

    decoder = TradeDecoder(away, reader_schema_text=SCHEMA_TEXT)
    with pytest.raises(RetryError):
        decoder.decode([value_of(1)], Coverage())
    assert len(decoder.decode([value_of(1), value_of(2)], Coverage()).rows) == 2
    assert asked == [1, 1]


def test_an_empty_batch_is_no_rows(decoder: TradeDecoder) -> None:
    assert decoder.decode([], Coverage()).rows.schema == TRADES_ARROW


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_damaged_records_never_cost_their_neighbours(
    data: st.DataObject, decoder: TradeDecoder, value_of: ValueOf
) -> None:
    good = value_of(2)
    at = data.draw(st.integers(0, len(good) - 1))
    damaged = data.draw(
        st.sampled_from([good[:at], good[:at] + data.draw(st.binary(max_size=12)) + good[at + 1 :]])
    )
    decoded = decoder.decode([value_of(1), damaged, value_of(3)], Coverage())
    assert {("BTCUSDT", 1), ("BTCUSDT", 3)} <= set(_ids(decoded.rows))
    assert len(decoded.rows) + len(decoded.undecodable) + len(decoded.repeated) == 3


def _gap(value: dict[str, Any]) -> bytes:
    base = {
        "symbol": "X", "first_id": 1, "last_id": 2, "class": "missing", "reason": "",
        "declared_ts_us": 1_767_225_600_000_000,
    }  # fmt: skip
    return json.dumps({**base, **value}).encode()


def test_gap_records_become_rows() -> None:
    gap = Gap("X", IdRange(3, 5), GapClass.REJECTED, "Invalid price format: 'x'")
    coverage = Coverage({"X": [(1, 2)]})
    decoded = GapDecoder().decode(
        [encode_gap(gap, declared_ts_us=1_767_225_600_000_000), _gap({})], coverage
    )
    assert decoded.rows.schema == GAPS_ARROW
    rows = decoded.rows.to_pylist()
    assert [(r["symbol"], r["first_id"], r["last_id"], r["gap_class"]) for r in rows] == [
        ("X", 3, 5, "rejected"),
        ("X", 1, 2, "missing"),
    ]
    assert decoded.coverage is coverage


def test_a_repair_becomes_a_row_with_the_time_of_the_repair() -> None:
    at_us = 1_767_225_660_000_000
    value = encode_repaired("X", IdRange(4, 5), repaired_ts_us=at_us)
    rows = GapDecoder().decode([_gap({"event": "declared"}), value], Coverage()).rows.to_pylist()
    assert rows[0]["repaired_ts_us"] is None
    assert (rows[1]["first_id"], rows[1]["last_id"]) == (4, 5)
    assert rows[1]["repaired_ts_us"].isoformat() == "2026-01-01T00:01:00+00:00"


@pytest.mark.parametrize(
    "strange",
    [
        None,
        b"",
        b'{"test": "message"}',
        b"\xff\xfe",
        _gap({"event": "repaired"}),
        _gap({"event": "declared", "repaired_ts_us": 1}),
        _gap({"event": "undone"}),
        b'{"symbol":"\xff"}',
        _gap({"first_id": 3}),
        _gap({"first_id": -1}),
        _gap({"last_id": 2**63}),
        _gap({"last_id": 10**30}),
        _gap({"declared_ts_us": 10**30}),
        _gap({"declared_ts_us": 2**63 - 1}),
        _gap({"first_id": "1"}),
    ],
)
def test_a_strange_gap_record_is_handed_back_and_keeps_its_neighbours(
    strange: bytes | None,
) -> None:
    decoded = GapDecoder().decode([_gap({}), strange, _gap({})], Coverage())
    assert len(decoded.rows) == 2
    (bad,) = decoded.undecodable
    assert (bad.value, bad.error_type) == (strange or b"", "serialize")
