import json
from pathlib import Path

import pytest
from pyiceberg.catalog import Catalog
from pyiceberg.types import BinaryType, DecimalType, LongType, TimestamptzType

from k2.errors import RetryError, StopError
from k2.kafka.encoding import SCHEMA_TEXT
from k2.lake.tables import (
    TRADES_SCHEMA,
    ensure_table,
    find_table,
    open_catalog,
    require_table,
)


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
