from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest
from pyiceberg.catalog import Catalog

from k2.errors import RejectError, RetryError, StopError
from k2.lake.commit_plan import Source
from k2.lake.decoding import TradeDecoder
from k2.lake.query import LakeReader
from k2.lake.tables import ensure_table, open_catalog
from k2.lake.writer import TableWriter

ValueOf = Callable[..., bytes]


@pytest.fixture
def writer(catalog: Catalog, decoder: TradeDecoder) -> TableWriter:
    return TableWriter(catalog, "trades", decoder, topics={Source.MAIN: "t@1"})


def test_sums_are_exact_to_the_last_digit(
    catalog: Catalog, writer: TableWriter, value_of: ValueOf
) -> None:
    amounts = [
        (Decimal("93712.01000001"), Decimal("0.0125000003")),
        (Decimal("0.0000000001"), Decimal("9999999999.9999999999")),
        (Decimal("1234567.8901234567"), Decimal("0.1")),
    ]
    writer.write(
        [value_of(i, price=p, quantity=q) for i, (p, q) in enumerate(amounts, 1)], offsets={0: 3}
    )
    answer = LakeReader(catalog).run("SELECT sum(price * quantity), sum(quantity) FROM trades")
    ((turnover, quantity),) = answer.rows
    assert turnover == sum(p * q for p, q in amounts)
    assert quantity == sum(q for _, q in amounts)
    widest = Decimal("1234567890123456789012345678.0123456789")
    writer.write([value_of(4, price=widest)], offsets={0: 4})
    ((price,),) = LakeReader(catalog).run("SELECT max(price) FROM trades").rows
    assert str(price) == str(widest)


def test_times_are_utc_to_the_microsecond(
    catalog: Catalog, writer: TableWriter, value_of: ValueOf
) -> None:
    writer.write([value_of(1, event_ts_us=1_767_225_600_123_457)], offsets={0: 1})
    answer = LakeReader(catalog).run("SELECT event_ts_us, event_ts_us::VARCHAR AS t FROM trades")
    assert answer.columns == ["event_ts_us", "t"]
    assert answer.rows[0][0].isoformat() == "2026-01-01T00:00:00.123457+00:00"
    assert answer.rows[0][1] == "2026-01-01 00:00:00.123457+00"


def test_a_reader_stays_at_the_snapshot_it_opened(
    catalog: Catalog, writer: TableWriter, value_of: ValueOf
) -> None:
    writer.write([value_of(1)], offsets={0: 1})
    reader = LakeReader(catalog)
    writer.write([value_of(2)], offsets={0: 2})
    assert reader.run("SELECT count(*) FROM trades").rows == [(1,)]
    assert LakeReader(catalog).run("SELECT count(*) FROM trades").rows == [(2,)]


def test_parameters_are_values_not_text(
    catalog: Catalog, writer: TableWriter, value_of: ValueOf
) -> None:
    writer.write([value_of(1), value_of(2, "币安人生USDT")], offsets={0: 2})
    sql = "SELECT source_sequence FROM trades WHERE symbol = ?"
    assert LakeReader(catalog).run(sql, ["币安人生USDT"]).rows == [(2,)]
    assert LakeReader(catalog).run(sql, ["' OR 1=1 --"]).rows == []


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM trades",
        "UPDATE trades SET symbol = 'X'",
        "INSERT INTO trades SELECT * FROM trades",
        "SELECT nothing FROM trades",
        "SELECT * FROM elsewhere",
        "not sql",
    ],
)
def test_what_duckdb_refuses_is_a_refusal_and_the_rows_stay(
    catalog: Catalog, writer: TableWriter, value_of: ValueOf, sql: str
) -> None:
    writer.write([value_of(1)], offsets={0: 1})
    reader = LakeReader(catalog)
    with pytest.raises(RejectError):
        reader.run(sql)
    assert reader.run("SELECT count(*) FROM trades").rows == [(1,)]
    assert len(ensure_table(catalog, "trades").scan().to_arrow()) == 1


def test_a_statement_without_rows_answers_nothing(catalog: Catalog, writer: TableWriter) -> None:
    assert writer.offsets() == {}
    assert LakeReader(catalog).run("CREATE TABLE mine (a INTEGER)").rows == []


def test_empty_tables_have_their_columns(catalog: Catalog, writer: TableWriter) -> None:
    assert writer.name == "trades"
    reader = LakeReader(catalog)
    assert "source_sequence" in reader.run("SELECT * FROM trades").columns
    assert reader.run("SELECT * FROM gaps").rows == []


def test_a_lake_without_a_table_says_so(catalog: Catalog) -> None:
    with pytest.raises(StopError, match="nothing was archived here yet"):
        LakeReader(catalog)


def test_files_of_a_path_with_strange_letters_are_read(
    tmp_path: Path, decoder: TradeDecoder, value_of: ValueOf
) -> None:
    strange = open_catalog(lake_dir=tmp_path / "my lake, 100% #1?")
    TableWriter(strange, "trades", decoder, topics={Source.MAIN: "t@1"}).write(
        [value_of(1)], offsets={0: 1}
    )
    assert LakeReader(strange).run("SELECT count(*) FROM trades").rows == [(1,)]


@pytest.mark.parametrize("files", ["snap-*.avro", "*-m0.avro", "*.parquet"])
def test_a_file_that_is_not_there_may_come_back(
    tmp_path: Path, catalog: Catalog, writer: TableWriter, value_of: ValueOf, files: str
) -> None:
    writer.write([value_of(1)], offsets={0: 1})
    for path in (tmp_path / "lake").rglob(files):
        path.unlink()
    with pytest.raises(RetryError, match="files cannot be read"):
        LakeReader(catalog)


@pytest.mark.parametrize("files", ["snap-*.avro", "*-m0.avro"])
@pytest.mark.parametrize("left", [b"", b"\x00\xff" * 100])
def test_a_file_that_is_damaged_asks_for_another(
    tmp_path: Path,
    catalog: Catalog,
    writer: TableWriter,
    value_of: ValueOf,
    files: str,
    left: bytes,
) -> None:
    writer.write([value_of(1)], offsets={0: 1})
    for path in (tmp_path / "lake").rglob(files):
        path.write_bytes(left)
    with pytest.raises(StopError, match=r"damaged.*restore"):
        LakeReader(catalog)
