"""PURE: what the lake's catalog and table are."""

import msgspec

from k2.doctor.finding import Finding, Unseen, duration_text, fail, ok, warn

SNAPSHOT_AGE_WARN_S = 300.0
"""An archive commits every few seconds while anything trades."""


class TableSeen(msgspec.Struct, frozen=True):
    """A table and its newest snapshot."""

    name: str
    snapshots: int
    age_s: float | None
    """Of the newest snapshot; None before the first."""


class NoLake(msgspec.Struct, frozen=True):
    """Nothing was archived here yet."""

    reason: str


def judge_table(seen: TableSeen | NoLake | Unseen, *, place: str) -> list[Finding]:
    """Judge the catalog, the table and its newest snapshot.

    Args:
        seen: What was found.
        place: The lake's folder, or the catalog's name.
    """
    match seen:
        case Unseen(reason):
            return [
                fail(
                    "catalog",
                    f"{place}: {reason}",
                    fix="correct K2_LAKE_DIR or K2_LAKE_CATALOG; if files are gone, restore them: "
                    "`k2 archive --from-first` into a new lake has what Kafka still has",
                )
            ]
        case NoLake(reason):
            return [
                warn(
                    "catalog",
                    reason,
                    fix="`k2 archive` makes it; if it already ran, K2_LAKE_DIR differs",
                )
            ]
    found = [ok("catalog", f"{place}: table {seen.name}, {seen.snapshots} snapshots kept")]
    if seen.age_s is None:
        found.append(warn("newest snapshot", "none yet", fix="is `k2 archive` running?"))
    elif seen.age_s > SNAPSHOT_AGE_WARN_S:
        found.append(
            warn(
                "newest snapshot",
                f"{duration_text(seen.age_s)} old",
                fix="is `k2 archive` running, does anything trade? "
                "K2_ARCHIVE_METRICS_PORT's /metrics and its log tell",
            )
        )
    else:
        found.append(ok("newest snapshot", f"{duration_text(seen.age_s)} old"))
    return found
