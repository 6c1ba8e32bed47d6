"""The shell that opens the lake for reading; blocking."""

import time

from pyiceberg.table import Table
from pyiceberg.table.snapshots import Snapshot

from k2.doctor.finding import Unseen
from k2.doctor.lake_judgement import NoLake, TableSeen
from k2.errors import RetryError, StopError
from k2.lake.failures import lake_failures
from k2.lake.tables import NAMESPACE, NoLakeError, find_table, open_catalog
from k2.settings import Settings

TABLE = "trades"


def look_at_lake(settings: Settings) -> TableSeen | NoLake | Unseen:
    """Open the catalog, load the table, read its newest manifest list, measure the manifests."""
    try:
        catalog = open_catalog(
            lake_dir=settings.lake_path, catalog_name=settings.lake_catalog, create=False
        )
        table = find_table(catalog, TABLE)
        if table is None:
            return NoLake(f"no table {NAMESPACE}.{TABLE}: nothing was archived here yet")
        newest = table.current_snapshot()
        if newest is not None:
            with lake_failures("the newest snapshot cannot be read"):
                _measure(table, newest)
    except NoLakeError as exc:
        return NoLake(str(exc).partition(":")[0])
    except (RetryError, StopError) as exc:
        return Unseen(" ".join(str(exc).split())[:300])
    age_s = None if newest is None else time.time() - newest.timestamp_ms / 1000
    return TableSeen(f"{NAMESPACE}.{TABLE}", len(table.metadata.snapshots), age_s)


def _measure(table: Table, snapshot: Snapshot) -> None:
    for manifest in snapshot.manifests(table.io):
        length = len(table.io.new_input(manifest.manifest_path))
        if length != manifest.manifest_length:
            raise StopError(
                f"{manifest.manifest_path} is damaged: {length} bytes, {manifest.manifest_length} "
                "were written"
            )
