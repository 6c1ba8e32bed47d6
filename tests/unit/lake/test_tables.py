import json
from collections.abc import Callable
from pathlib import Path

import pytest
from pyiceberg.catalog import Catalog
from pyiceberg.schema import Schema
from pyiceberg.types import BinaryType, DecimalType, LongType, TimestamptzType

from k2.errors import RetryError, StopError
from k2.kafka.encoding import SCHEMA_TEXT
from k2.lake.decoding import GapDecoder
from k2.lake.query import LakeReader
from k2.lake.tables import (
    GAPS_SCHEMA,
    MANIFEST_MAX_BYTES,
    TRADES_SCHEMA,
    ensure_table,
    find_table,
    open_catalog,
    require_table,
)
from k2.tape.coverage import Coverage


def test_the_table_has_the_columns_of_the_avro_schema_in_its_order() -> None:
    avro = {field["name"]: field["type"] for field in json.loads(SCHEMA_TEXT)["fields"]}
    assert TRADES_SCHEMA.column_names == list(avro)
    for field in TRADES_SCHEMA.fields:
        nullable = isinstance(avro[field.name], list)
        assert field.required is not nullable, field.name
        assert not isinstance(field.field_type, BinaryType)
    types = {field.name: field.field_type for field in TRADES_SCHEMA.fields}
    assert types["price"] == types["quantity"] == DecimalType(38, 10)
    assert types["trade_ts_us"] == types["event_ts_us"] == TimestamptzType()
    assert types["recv_ts_ns"] == types["source_sequence"] == LongType()


def test_a_table_is_made_once(tmp_path: Path, catalog: Catalog) -> None:
    made = ensure_table(catalog, "trades")
    again = ensure_table(open_catalog(lake_dir=tmp_path / "lake"), "trades")
    assert made.metadata.table_uuid == again.metadata.table_uuid
    assert [field.name for field in made.spec().fields] == ["trade_day"]
    assert [field.source_id for field in made.sort_order().fields] == [5, 8]


def test_a_gaps_table_from_before_there_were_repairs_gets_the_column(
    catalog: Catalog, gap_value: Callable[..., bytes]
) -> None:
    catalog.create_namespace("crypto")
    old = catalog.create_table("crypto.gaps", Schema(*GAPS_SCHEMA.fields[:6]))
    decoded = GapDecoder().decode([gap_value(1, 2)], Coverage()).rows
    old.append(decoded.drop_columns(["repaired_ts_us"]))
    ensure_table(catalog, "trades")
    sql = "SELECT first_id, repaired_ts_us FROM gaps ORDER BY first_id"
    assert LakeReader(catalog).run(sql).rows == [(1, None)]

    table = ensure_table(catalog, "gaps")

    assert table.schema().column_names == GAPS_SCHEMA.column_names
    repaired = gap_value(2, 2, event="repaired", repaired_ts_us=1_767_225_660_000_000)
    table.append(GapDecoder().decode([repaired], Coverage()).rows)
    (_, (_, repaired_at)) = LakeReader(catalog).run(sql).rows
    assert repaired_at.isoformat() == "2026-01-01T00:01:00+00:00"
    assert ensure_table(catalog, "gaps").metadata.current_schema_id == 1


def test_a_table_from_before_there_was_a_property_gets_it_and_keeps_what_was_chosen(
    catalog: Catalog,
) -> None:
    bound = "commit.manifest.target-size-bytes"
    for name, chosen in (("gaps", {}), ("trades", {bound: "1048576"})):
        with ensure_table(catalog, name).transaction() as transaction:
            transaction.remove_properties(bound)
            transaction.set_properties(chosen)
    assert bound not in require_table(catalog, "gaps").properties

    ensure_table(catalog, "gaps")
    ensure_table(catalog, "trades")

    assert require_table(catalog, "gaps").properties[bound] == str(MANIFEST_MAX_BYTES)
    assert require_table(catalog, "trades").properties[bound] == "1048576"
    settled = require_table(catalog, "gaps").metadata_location
    assert ensure_table(catalog, "gaps").metadata_location == settled, "nothing is left to set"


def test_a_lake_that_is_absent_says_how_to_begin(tmp_path: Path, catalog: Catalog) -> None:
    with pytest.raises(StopError, match="start `k2 up`"):
        open_catalog(lake_dir=tmp_path / "nowhere", create=False)
    assert not (tmp_path / "nowhere").exists()
    assert find_table(catalog, "trades") is None
    with pytest.raises(StopError, match="nothing was archived here yet"):
        require_table(catalog, "trades")


def test_a_place_no_lake_can_be_is_tried_again_later(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RetryError, match="cannot be opened"):
        open_catalog(lake_dir=tmp_path / "file")
