import json
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from pyiceberg.catalog import Catalog
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.schema import Schema
from pyiceberg.types import BinaryType, DecimalType, LongType, TimestamptzType
from pyiceberg.utils.config import Config

from k2.errors import RetryError, StopError
from k2.kafka.encoding import SCHEMA_TEXT
from k2.lake.decoding import GapDecoder
from k2.lake.query import LakeReader
from k2.lake.tables import (
    CATALOG_NAME,
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


@pytest.mark.parametrize(
    "name", ["lake", "my lake", "lake é", "lake#1", "lake?1", "lake%20x", "100% lake", "lake+x"]
)
def test_all_that_a_lake_holds_is_in_its_folder(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "there" / name
    for _ in range(2):  # made, and opened again
        table = ensure_table(open_catalog(lake_dir=folder), "trades")
        table.append(table.schema().as_arrow().empty_table())
    held = {path.relative_to(folder).parts[0] for path in folder.rglob("*") if path.is_file()}
    assert held == {"catalog.db", "warehouse"}
    assert list((tmp_path / "there").iterdir()) == [folder]
    assert LakeReader(open_catalog(lake_dir=folder, create=False)).run("FROM trades").rows == []


def test_a_lake_whose_files_lie_under_encoded_names_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "my lake"
    old = SqlCatalog(
        CATALOG_NAME,
        uri=f"sqlite:///{_made(folder) / 'catalog.db'}",
        warehouse=(folder / "warehouse").as_uri(),
        **{"py-io-impl": "k2.lake.file_io.KeepingFileIO"},
    )
    rows = ensure_table(old, "gaps").schema().as_arrow().empty_table()
    ensure_table(old, "trades")

    catalog = open_catalog(lake_dir=folder, create=False)
    table = ensure_table(catalog, "gaps")
    table.append(rows)
    assert table.location().startswith(f"file://{tmp_path}/my%20lake/")
    assert LakeReader(catalog).run("FROM gaps").rows == []


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _answering(status: int) -> Iterator[str]:
    """Serve a REST catalog that gives one answer, whatever is asked."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"no")

        def log_message(self, *_args: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def _configure(monkeypatch: pytest.MonkeyPatch, **catalog: str) -> None:
    """Let pyiceberg's configuration, which it reads once, name a catalog ``theirs``."""
    config = Config()
    config.config = {"catalog": {"theirs": {**catalog}}}
    monkeypatch.setattr("pyiceberg.catalog._ENV_CONFIG", config)


def test_a_catalog_that_cannot_answer_now_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for uri in _answering(503):
        _configure(monkeypatch, type="rest", uri=uri)
        with pytest.raises(RetryError, match="cannot be opened"):
            open_catalog(lake_dir=tmp_path, catalog_name="theirs")


@pytest.mark.parametrize(
    ("name", "uri", "why"),
    [
        ("nosuch", "", "URI missing"),
        ("theirs", "postgresql+nosuchdriver://127.0.0.1/x", "nosuchdriver"),
        ("theirs", "mysql+pymysql://127.0.0.1/x", "pymysql"),
    ],
)
def test_a_catalog_that_no_waiting_mends_names_its_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, uri: str, why: str
) -> None:
    _configure(monkeypatch, type="sql", uri=uri)
    with pytest.raises(StopError, match=f"{why}.*K2_LAKE_CATALOG"):
        open_catalog(lake_dir=tmp_path, catalog_name=name)


@pytest.mark.parametrize("how", [b"", b"{}", b"\x00\xff" * 100])
def test_metadata_that_is_none_asks_for_the_file_again(
    tmp_path: Path, catalog: Catalog, how: bytes
) -> None:
    ensure_table(catalog, "trades")
    for path in (tmp_path / "lake").rglob("*.metadata.json"):
        path.write_bytes(how)
    with pytest.raises(StopError, match=r"damaged.*restore"):
        find_table(catalog, "trades")
