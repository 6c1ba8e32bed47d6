"""How many snapshots a table keeps."""

from pyiceberg.table import Table

SNAPSHOTS_MAX = 60
SNAPSHOTS_KEPT = 20
"""Commit time grows with the snapshots kept: 24 ms at few, 0.8 s at 1,000 (design, section 6)."""


def snapshots_to_forget(table: Table) -> list[int]:
    """Return the ids of old snapshots once there are many, else none.

    The current one and tagged ones stay: pyiceberg refuses to expire them.
    """
    kept = {ref.snapshot_id for ref in table.refs().values()}
    snapshots = sorted(
        (s for s in table.metadata.snapshots if s.snapshot_id not in kept),
        key=lambda s: s.timestamp_ms,
    )
    if len(snapshots) <= SNAPSHOTS_MAX:
        return []
    return [snapshot.snapshot_id for snapshot in snapshots[:-SNAPSHOTS_KEPT]]
