"""Kafka record values in, Arrow tables out; what cannot be decoded is handed back, not raised."""

import io
import json
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

import fastavro
import msgspec
import pyarrow as pa
from fastavro.read import SchemaResolutionError
from fastavro.schema import SchemaParseException
from pyiceberg.io.pyarrow import schema_to_pyarrow

from k2.errors import RejectError
from k2.lake.tables import GAPS_SCHEMA, TRADES_SCHEMA
from k2.market import IdRange
from k2.tape.coverage import Coverage

SchemaText = Callable[[int], str | None]
"""Registry schema id to schema, None when the registry does not know it; may raise RetryError."""

TRADES_ARROW: pa.Schema = schema_to_pyarrow(TRADES_SCHEMA, include_field_ids=False)
GAPS_ARROW: pa.Schema = schema_to_pyarrow(GAPS_SCHEMA, include_field_ids=False)

SCHEMAS_MAX = 10
"""Schemas kept ready to decode with; those used longest ago make room."""

_WIRE_HEADER_BYTES = 5
_TS_US_MAX = 253_402_300_799 * 10**6  # 9999-12-31: neither partitions nor readers count further
_DECODING_FAILURES = (
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    OverflowError,
    TypeError,
    RecursionError,  # a schema that nests deeper than Python does
    SchemaResolutionError,
)
_ARROW_FAILURES = (pa.ArrowException, ValueError, TypeError, OverflowError)


class Undecodable(msgspec.Struct, frozen=True):
    """A record that cannot become a row: its offset advances, its bytes go to the dead letters."""

    value: bytes
    error: str
    error_type: str


class Decoded(msgspec.Struct, frozen=True):
    """One batch of rows, and what was left out of it."""

    rows: pa.Table
    """Sorted by (symbol, id) where the table has ids."""
    coverage: Coverage
    """Coverage of the table once ``rows`` are in it."""
    undecodable: list[Undecodable]
    repeated: list[str]
    """Message ids of records whose id the table already covers: left out, and a broken promise."""

    def ranges(self) -> Coverage:
        """Return the ids of ``rows``; of a table without ids, nothing."""
        coverage = Coverage()
        if "source_sequence" in self.rows.column_names:
            symbols = self.rows.column("symbol").to_pylist()
            ids = self.rows.column("source_sequence").to_pylist()
            for symbol, source_id in zip(symbols, ids, strict=True):
                coverage.add(symbol, source_id)
        return coverage


class TradeDecoder:
    """Avro trades to rows of ``TRADES_SCHEMA``; schemas are looked up once per id."""

    def __init__(self, schema_text: SchemaText, *, reader_schema_text: str) -> None:
        """Decode with schemas from ``schema_text``, resolved to the one the table is made for."""
        self._schema_text = schema_text
        self._reader = fastavro.parse_schema(_integer_times(json.loads(reader_schema_text)))
        self._schemas: OrderedDict[int, Any] = OrderedDict()
        self.evictions = 0
        """How often a schema had to make room: poison names ids without end."""

    @property
    def schemas(self) -> int:
        """How many schemas are kept ready."""
        return len(self._schemas)

    def decode(self, values: Sequence[bytes | None], coverage: Coverage) -> Decoded:
        """Decode one batch.

        Args:
            values: Record values in offset order; None is a tombstone.
            coverage: What the table holds; not changed.

        Raises:
            RetryError: If a schema has to be looked up and the registry is away.
        """
        found: list[tuple[bytes, dict[str, Any]]] = []
        undecodable: list[Undecodable] = []
        for value in values:
            try:
                found.append(self._record(value))
            except RejectError as exc:
                undecodable.append(Undecodable(value or b"", str(exc), exc.error_type))
        after = coverage.copy()
        repeated: list[str] = []
        records: list[tuple[bytes, dict[str, Any]]] = []
        for value, record in found:
            if after.add(record["symbol"], record["source_sequence"]):
                records.append((value, record))
            else:
                repeated.append(record["message_id"])
        records.sort(key=lambda pair: (pair[1]["symbol"], pair[1]["source_sequence"]))
        try:
            rows = pa.Table.from_pylist([record for _, record in records], schema=TRADES_ARROW)
        except _ARROW_FAILURES:
            # One strange row must not cost its neighbours: find it, then do the batch without it.
            strange = {value for value, record in records if not _fits(record)}
            if not strange:
                raise
            rest = self.decode([value for value in values if value not in strange], coverage)
            # Each of them, also where two are alike: every record becomes something.
            bad = [
                Undecodable(value, "does not fit the table", "serialize")
                for value in values
                if value is not None and value in strange
            ]
            return msgspec.structs.replace(rest, undecodable=[*rest.undecodable, *bad])
        return Decoded(rows, after, undecodable, repeated)

    def _record(self, value: bytes | None) -> tuple[bytes, dict[str, Any]]:
        if value is None or len(value) < _WIRE_HEADER_BYTES or value[0] != 0:
            raise RejectError("not an Avro record: no schema id in front", error_type="serialize")
        schema_id = int.from_bytes(value[1:_WIRE_HEADER_BYTES], "big")
        writer = self._schema(schema_id)
        reader = None if writer == self._reader else self._reader
        try:
            record = fastavro.schemaless_reader(
                io.BytesIO(value[_WIRE_HEADER_BYTES:]), writer, reader
            )
        except _DECODING_FAILURES as exc:
            raise RejectError(f"Avro body does not fit: {exc!r}", error_type="serialize") from exc
        if not isinstance(record, dict) or record["source_sequence"] < 0:
            raise RejectError("Avro value is not a trade", error_type="serialize")
        for name in ("trade_ts_us", "event_ts_us"):
            if not 0 <= (record[name] or 0) <= _TS_US_MAX:
                raise RejectError(f"{name} is no time: {record[name]}", error_type="serialize")
        return value, record

    def _schema(self, schema_id: int) -> Any:
        if schema_id not in self._schemas:
            text = self._schema_text(schema_id)
            self._schemas[schema_id] = None if text is None else _parsed(text)
            if len(self._schemas) > SCHEMAS_MAX:
                self._schemas.popitem(last=False)
                self.evictions += 1
        self._schemas.move_to_end(schema_id)
        schema = self._schemas[schema_id]
        if schema is None:
            raise RejectError(
                f"schema id {schema_id} is unknown or not Avro", error_type="serialize"
            )
        return schema


class GapDecoder:
    """JSON gap records, declarations and repairs, to rows of ``GAPS_SCHEMA``."""

    def decode(self, values: Sequence[bytes | None], coverage: Coverage) -> Decoded:
        """Decode one batch; gaps have no ids of their own, so ``coverage`` passes through."""
        records: list[dict[str, Any]] = []
        undecodable: list[Undecodable] = []
        for value in values:
            try:
                gap = msgspec.json.decode(value or b"", type=_GapRecord)
                IdRange(gap.first_id, gap.last_id)
                if (gap.event == "repaired") != (gap.repaired_ts_us is not None):
                    raise ValueError("a repair, and only a repair, has a repaired_ts_us")
            except (msgspec.MsgspecError, ValueError) as exc:
                error = f"not a gap record: {exc}"
                undecodable.append(Undecodable(value or b"", error, "serialize"))
                continue
            records.append({name: getattr(gap, name) for name in GAPS_ARROW.names})
        rows = pa.Table.from_pylist(records, schema=GAPS_ARROW)
        return Decoded(rows, coverage, undecodable, [])


_Int64 = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
_TsUs = Annotated[int, msgspec.Meta(ge=0, le=_TS_US_MAX)]


class _GapRecord(msgspec.Struct, rename={"gap_class": "class"}):
    symbol: str
    first_id: _Int64
    last_id: _Int64
    gap_class: str
    reason: str
    declared_ts_us: _TsUs
    event: Literal["declared", "repaired"] = "declared"
    repaired_ts_us: _TsUs | None = None


def _fits(record: dict[str, Any]) -> bool:
    try:
        pa.RecordBatch.from_pylist([record], schema=TRADES_ARROW)
    except _ARROW_FAILURES:
        return False
    return True


def _parsed(schema_text: str) -> Any:
    """Return a registry's schema for fastavro, or None when it is not Avro."""
    try:
        return fastavro.parse_schema(_integer_times(json.loads(schema_text)))
    except (*_DECODING_FAILURES, SchemaParseException):
        return None


def _integer_times(schema: Any) -> Any:
    """Return the schema with plain longs for times: Arrow takes them as they are."""
    if isinstance(schema, list):
        return [_integer_times(part) for part in schema]
    if isinstance(schema, dict):
        if schema.get("logicalType") == "timestamp-micros":
            return schema["type"]
        return {
            key: _integer_times(part) if key in ("type", "fields", "items") else part
            for key, part in schema.items()
        }
    return schema
