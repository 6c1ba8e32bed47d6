"""The two tables, ``trades`` and ``gaps``: their columns, layout and where they live."""

from contextlib import suppress
from pathlib import Path

from pyiceberg.catalog import Catalog, load_catalog
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import (
    NamespaceAlreadyExistsError,
    NoSuchPropertyException,
    NoSuchTableError,
    NotInstalledError,
    TableAlreadyExistsError,
)
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.table.sorting import SortField, SortOrder
from pyiceberg.transforms import DayTransform, IdentityTransform
from pyiceberg.types import (
    BooleanType,
    DecimalType,
    IcebergType,
    LongType,
    NestedField,
    StringType,
    TimestamptzType,
)
from sqlalchemy import URL
from sqlalchemy.exc import ArgumentError

from k2.errors import RetryError, StopError
from k2.lake.failures import AWAY, lake_failures
from k2.market import DECIMAL_PRECISION, DECIMAL_SCALE

NAMESPACE = "crypto"
CATALOG_NAME = "k2"

_CATALOG_AWAY = "the lake's catalog cannot be asked"

_AMOUNT = DecimalType(DECIMAL_PRECISION, DECIMAL_SCALE)


def _required(field_id: int, name: str, field_type: IcebergType, doc: str) -> NestedField:
    return NestedField(field_id, name, field_type, required=True, doc=doc)


TRADES_SCHEMA = Schema(
    _required(1, "message_id", StringType(), "deterministic name, such as BINANCE:BTCUSDT:agg:1"),
    _required(2, "venue", StringType(), "where it traded"),
    _required(3, "environment", StringType(), "production, testnet, demo or simulated"),
    _required(4, "stream_kind", StringType(), "AGG_TRADE or TRADE: which ids source_sequence is"),
    _required(5, "symbol", StringType(), "the venue's symbol"),
    _required(6, "base_currency", StringType(), "what is traded"),
    _required(7, "quote_currency", StringType(), "what it is priced in"),
    _required(8, "source_sequence", LongType(), "the venue's id, consecutive per symbol"),
    NestedField(9, "previous_id", LongType(), doc="id before it on the tape; null for the first"),
    _required(10, "first_trade_id", LongType(), "first single fill merged"),
    _required(11, "last_trade_id", LongType(), "last single fill merged"),
    _required(12, "price", _AMOUNT, "quote currency per unit of base currency, exact"),
    _required(13, "quantity", _AMOUNT, "units of base currency, exact"),
    _required(14, "taker_side", StringType(), "BUY or SELL: who crossed the spread"),
    NestedField(15, "best_match", BooleanType(), doc="the venue's M field, as it came"),
    _required(16, "trade_ts_us", TimestamptzType(), "when it was matched"),
    NestedField(17, "event_ts_us", TimestamptzType(), doc="when the venue sent it; null if healed"),
    _required(18, "recv_ts_ns", LongType(), "when our socket received it, ns since the epoch"),
    _required(19, "origin", StringType(), "STREAM or HEALED"),
)

GAPS_SCHEMA = Schema(
    _required(1, "symbol", StringType(), "the venue's symbol"),
    _required(2, "first_id", LongType(), "first id declared, inclusive"),
    _required(3, "last_id", LongType(), "last id declared, inclusive"),
    _required(4, "gap_class", StringType(), "missing, rejected or void"),
    _required(5, "reason", StringType(), "what was seen"),
    _required(6, "declared_ts_us", TimestamptzType(), "when it was declared"),
    NestedField(
        7,
        "repaired_ts_us",
        TimestamptzType(),
        doc="null: declared; else when the ids were repaired",
    ),
)

MANIFEST_MAX_BYTES = 256 * 1024
"""Each commit adds a data file, and each 20th merges what the manifests say of them. Up to this
size only (some 450 files): by default, 8 MiB, a merge reads and rewrites the entries of up to
15,000 files, 0.3 ms each, and the process keeps the memory that took: 13 MB per 1,000 files."""

_PROPERTIES = {
    # A moved table is looked at again, never replayed into blindly (ADR 0001, design section 6).
    "commit.retry.num-retries": "0",
    "commit.manifest-merge.enabled": "true",
    "commit.manifest.min-count-to-merge": "20",
    "commit.manifest.target-size-bytes": str(MANIFEST_MAX_BYTES),
    "write.parquet.compression-codec": "zstd",
    "write.metadata.previous-versions-max": "20",
}


class NoLakeError(StopError):
    """Nothing was archived here yet."""


def open_catalog(*, lake_dir: Path, catalog_name: str = "", create: bool = True) -> Catalog:
    """Open the lake's catalog.

    Args:
        lake_dir: Folder of the SQLite catalog and the files; made if absent.
        catalog_name: A catalog of pyiceberg's own configuration instead, if not empty.
        create: Make the folder and its catalog if absent; readers do not.

    Raises:
        NoLakeError: If there is no lake and none shall be made.
        StopError: If the named catalog is not configured, or a driver of it not installed.
        RetryError: If the catalog cannot be reached.
    """
    keeping = {"py-io-impl": "k2.lake.file_io.KeepingFileIO"}
    try:
        if catalog_name:
            return load_catalog(catalog_name, **keeping)
        root = lake_dir.absolute()
        if not create and not (root / "catalog.db").is_file():
            raise NoLakeError(
                f"no lake at {root}: start `k2 up`, or name the lake with --lake or K2_LAKE_DIR"
            )
        root.mkdir(parents=True, exist_ok=True)
        return SqlCatalog(
            CATALOG_NAME,
            uri=URL.create("sqlite", database=str(root / "catalog.db")).render_as_string(),
            # No URL: pyiceberg would take one apart at `#` and `?`, and never decode a `%20`.
            warehouse=str(root / "warehouse"),
            **keeping,
        )
    except (ArgumentError, NoSuchPropertyException, NotInstalledError) as exc:
        raise _unusable(catalog_name or str(lake_dir), exc) from exc
    except AWAY as exc:
        raise RetryError(f"the lake's catalog cannot be opened: {exc}") from exc
    except ValueError as exc:
        raise _unusable(catalog_name or str(lake_dir), exc) from exc


def _unusable(catalog_name: str, exc: Exception) -> StopError:
    return StopError(
        f"catalog {catalog_name} cannot be used: {exc.__cause__ or exc}. Correct K2_LAKE_CATALOG, "
        "or what .pyiceberg.yaml or the environment says of it"
    )


def ensure_table(catalog: Catalog, name: str) -> Table:
    """Return table ``trades`` or ``gaps``: created if absent, given the columns it lacks.

    Properties it lacks are set as well; one it has stays as it is: somebody chose it.

    Raises:
        RetryError: If the catalog cannot be asked, or the table changed meanwhile.
        StopError: If the table's metadata is damaged.
    """
    found = find_table(catalog, name)
    with lake_failures(_CATALOG_AWAY):
        if found is None:
            return _create_table(catalog, name)
        wanted = TRADES_SCHEMA if name == "trades" else GAPS_SCHEMA
        absent = [f for f in wanted.fields if f.name not in found.schema().column_names]
        if absent:
            with found.update_schema() as update:
                for field in absent:
                    update.add_column(field.name, field.field_type, doc=field.doc)
        if unset := {key: _PROPERTIES[key] for key in _PROPERTIES.keys() - found.properties.keys()}:
            with found.transaction() as transaction:
                transaction.set_properties(unset)
        return found


def _create_table(catalog: Catalog, name: str) -> Table:
    with suppress(NamespaceAlreadyExistsError):
        catalog.create_namespace(NAMESPACE)
    properties = {"format-version": "2", **_PROPERTIES}
    try:
        if name == "trades":
            day = PartitionField(16, 1000, DayTransform(), "trade_day")
            return catalog.create_table(
                f"{NAMESPACE}.{name}",
                TRADES_SCHEMA,
                partition_spec=PartitionSpec(day),
                sort_order=SortOrder(
                    SortField(5, IdentityTransform()), SortField(8, IdentityTransform())
                ),
                properties=properties,
            )
        return catalog.create_table(f"{NAMESPACE}.{name}", GAPS_SCHEMA, properties=properties)
    except TableAlreadyExistsError:
        return catalog.load_table(f"{NAMESPACE}.{name}")


def find_table(catalog: Catalog, name: str) -> Table | None:
    """Return a table, or None when there is none yet.

    Raises:
        RetryError: If the catalog cannot be asked.
        StopError: If the table's metadata is damaged.
    """
    with lake_failures(_CATALOG_AWAY):
        try:
            return catalog.load_table(f"{NAMESPACE}.{name}")
        except NoSuchTableError:
            return None


def require_table(catalog: Catalog, name: str) -> Table:
    """Return a table.

    Raises:
        NoLakeError: If nothing was ever archived here.
    """
    table = find_table(catalog, name)
    if table is None:
        raise NoLakeError(
            f"this lake has no table {NAMESPACE}.{name}: nothing was archived here yet. "
            "Start `k2 up`, or name the lake with K2_LAKE_DIR"
        )
    return table
