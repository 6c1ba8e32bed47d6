"""The shell that opens the lake for reading; blocking."""

import time

from pyiceberg.exceptions import RESTError
from sqlalchemy.exc import SQLAlchemyError

from k2.doctor.finding import Unseen
from k2.doctor.lake_judgement import NoLake, TableSeen
from k2.errors import RetryError, StopError
from k2.lake.tables import NAMESPACE, find_table, open_catalog
from k2.settings import Settings

TABLE = "trades"


def look_at_lake(settings: Settings) -> TableSeen | NoLake | Unseen:
    """Open the catalog, load the table, read its newest manifest list."""
    try:
        catalog = open_catalog(
            lake_dir=settings.lake_path, catalog_name=settings.lake_catalog, create=False
        )
        table = find_table(catalog, TABLE)
        if table is None:
            return NoLake(f"no table {NAMESPACE}.{TABLE}: nothing was archived here yet")
        newest = table.current_snapshot()
        if newest is not None:
            newest.manifests(table.io)
    except StopError as exc:
        return NoLake(str(exc).partition(":")[0])
    except (RetryError, OSError, ValueError, SQLAlchemyError, RESTError) as exc:
        return Unseen(" ".join(str(exc).split())[:300])
    age_s = None if newest is None else time.time() - newest.timestamp_ms / 1000
    return TableSeen(f"{NAMESPACE}.{TABLE}", len(table.metadata.snapshots), age_s)
