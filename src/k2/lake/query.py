"""SQL over the lake: DuckDB reads the files of the tables' current snapshots, and nothing else."""

from collections.abc import Sequence
from typing import Any

import duckdb
import msgspec
import pyarrow as pa
import pyarrow.dataset as ds
from pyiceberg.catalog import Catalog
from pyiceberg.io.pyarrow import PyArrowFileIO
from pyiceberg.table import Table

from k2.errors import RejectError, RetryError, StopError
from k2.lake.decoding import GAPS_ARROW, TRADES_ARROW
from k2.lake.failures import lake_failures
from k2.lake.tables import find_table, require_table


class Answer(msgspec.Struct, frozen=True):
    """Rows of one query, in the query's order."""

    columns: list[str]
    rows: list[tuple[Any, ...]]


class LakeReader:
    """``trades`` and ``gaps`` as two views, fixed at the snapshots found when it was opened."""

    def __init__(self, catalog: Catalog) -> None:
        """Plan the files of both tables.

        Raises:
            StopError: If nothing was archived here yet, a table needs a newer reader, or a file
                is damaged.
            RetryError: If catalog or files cannot be read.
        """
        self._connection = duckdb.connect(":memory:")
        self._connection.execute("SET TimeZone = 'UTC'")
        trades_table, gaps_table = require_table(catalog, "trades"), find_table(catalog, "gaps")
        with lake_failures("the lake's files cannot be read"):
            trades = _rows_of(trades_table, TRADES_ARROW)
            gaps = GAPS_ARROW.empty_table()
            if gaps_table is not None:
                gaps = _rows_of(gaps_table, GAPS_ARROW)
        self._connection.register("trades", trades)
        self._connection.register("gaps", gaps)

    def run(self, sql: str, parameters: Sequence[Any] = ()) -> Answer:
        """Run one statement.

        Raises:
            RejectError: If DuckDB refuses it, or an answer of it is no value of Python.
            RetryError: If a file of the snapshot cannot be read.
        """
        try:
            relation = self._connection.sql(sql, params=list(parameters) or None)
            if relation is None:  # a statement without rows
                return Answer([], [])
            found = relation.to_arrow_table()
        except OSError as exc:
            raise RetryError(f"the lake's files cannot be read: {exc}") from exc
        except duckdb.Error as exc:
            raise RejectError(str(exc)) from exc
        try:
            return Answer(found.column_names, list(zip(*_columns(found), strict=True)))
        except (OverflowError, ValueError) as exc:
            # DuckDB's times go further than Python's: before Christ, to infinity, to nanoseconds.
            raise RejectError(
                f"the answer holds a time that cannot be shown: {exc}; cast it to VARCHAR"
            ) from exc


def _columns(found: pa.Table) -> list[list[Any]]:
    return [column.to_pylist() for column in found.columns]


def _rows_of(table: Table, schema: pa.Schema) -> Any:
    """Return the current snapshot's rows as a lazily read Arrow dataset."""
    tasks = list(table.scan().plan_files())
    if any(task.delete_files for task in tasks):
        raise StopError(
            f"{table.name()} has row-level deletes, which k2 never writes: another program did"
        )
    if not tasks:
        return schema.empty_table()
    file_io = table.io
    if not isinstance(file_io, PyArrowFileIO):
        raise StopError(f"{table.name()} is read through {type(file_io).__name__}, not PyArrow")
    filesystems = {}
    paths = []
    for task in tasks:
        scheme, netloc, path = file_io.parse_location(task.file.file_path, file_io.properties)
        filesystems[scheme, netloc] = file_io.fs_by_scheme(scheme, netloc)
        paths.append(path)
    if len(filesystems) != 1:
        raise StopError(f"{table.name()} spreads over several storages: {sorted(filesystems)}")
    filesystem = next(iter(filesystems.values()))
    return ds.dataset(paths, schema=schema, format="parquet", filesystem=filesystem)
