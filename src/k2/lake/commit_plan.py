"""PURE: what the table says it holds, and what that means for a commit whose outcome is unclear."""

import json
from collections.abc import Mapping
from enum import Enum
from typing import Any

import msgspec

from k2.errors import StopError
from k2.tape.coverage import Coverage

OFFSETS = "k2.offsets"
BATCH_ID = "k2.batch-id"
RANGES = "k2.ranges"
COVERAGE = "k2.coverage"
TOPIC = "k2.topic"

Offsets = dict[int, int]
"""Topic partition to the first offset not in the table."""


class TableState(msgspec.Struct, frozen=True):
    """What a table says of itself."""

    offsets: Offsets
    batch_id: str
    coverage: Coverage
    topic: str
    """Name and id of the topic it was filled from; empty on a new table."""


class Verdict(Enum):
    """What became of a commit that raised."""

    LANDED = "landed"
    APPEND_AGAIN = "append_again"
    ANOTHER_WRITER = "another_writer"


def read_state(
    *, properties: Mapping[str, str], summary: Mapping[str, str] | None, rows: int
) -> TableState:
    """Return what the table says, checked against itself.

    Args:
        properties: The table's properties.
        summary: Summary of its current snapshot, or None on an empty table.
        rows: Rows the snapshot claims to hold.

    Raises:
        StopError: If the two places that hold the offsets differ, or a table with rows has none:
            appending to such a table could double or lose rows.
    """
    if summary is None:
        return TableState({}, "", Coverage(), "")
    told = summary.get(OFFSETS), summary.get(BATCH_ID)
    kept = properties.get(OFFSETS), properties.get(BATCH_ID)
    if None in told or None in kept:
        if rows == 0:
            return TableState({}, "", Coverage(), "")
        raise StopError(
            f"the table holds {rows} rows but not the Kafka offsets they came from: another "
            "program wrote to it. Name another lake (K2_LAKE_DIR), or roll the table back to its "
            f"last snapshot with {OFFSETS} in the summary"
        )
    if told != kept:
        raise StopError(
            f"the table's snapshot says offsets {told[0]} (batch {told[1]}), its properties say "
            f"{kept[0]} (batch {kept[1]}): another program changed one of them. Roll the table "
            "back to its last snapshot where both agree"
        )
    return TableState(
        decode_offsets(told[0] or "{}"),
        told[1] or "",
        Coverage(json.loads(properties.get(COVERAGE, "{}"))),
        properties.get(TOPIC, ""),
    )


def after_failure(state: TableState, *, before: Offsets, batch_id: str) -> Verdict:
    """Say what a reloaded table shows of a commit that raised.

    Args:
        state: The table now.
        before: The offsets it had when the commit was prepared.
        batch_id: Of the commit in question.
    """
    if state.batch_id == batch_id:
        return Verdict.LANDED
    if state.offsets == before:
        return Verdict.APPEND_AGAIN
    return Verdict.ANOTHER_WRITER


def encode_offsets(offsets: Offsets) -> str:
    """Return offsets as the JSON text a snapshot summary holds."""
    return json.dumps({str(partition): offsets[partition] for partition in sorted(offsets)})


def decode_offsets(text: str) -> Offsets:
    """Return offsets from a snapshot summary."""
    parsed: dict[str, Any] = json.loads(text)
    return {int(partition): int(offset) for partition, offset in parsed.items()}


def encode_coverage(coverage: Coverage) -> str:
    """Return a coverage as the JSON text of a table property."""
    return json.dumps(coverage.as_pairs(), ensure_ascii=False)
