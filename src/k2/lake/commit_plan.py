"""PURE: what the table says it holds, and what that means for a commit whose outcome is unclear.

The trades table is filled from two topics, ``TRADES`` and ``REPAIRS``: every snapshot names the
offsets of both.
"""

import json
from collections.abc import Callable, Mapping
from enum import Enum
from typing import TypeVar

import msgspec

from k2.errors import StopError
from k2.tape.coverage import Coverage

OFFSETS = "k2.offsets"
BATCH_ID = "k2.batch-id"
RANGES = "k2.ranges"
COVERAGE = "k2.coverage"
TOPIC = "k2.topic"
REREAD_TO = "k2.reread-to"

T = TypeVar("T")

Offsets = dict[int, int]
"""Topic partition to the first offset not in the table."""


class Source(Enum):
    """Which of its topics a table was filled from; the value ends the names of its marks."""

    MAIN = ""
    """The trades topic of the trades table, the gaps topic of the gaps table."""
    REPAIRS = ".repairs"
    """Trades that came late or from the past."""

    @property
    def offsets_mark(self) -> str:
        """Name of the mark, in summary and properties, that holds its offsets."""
        return OFFSETS + self.value

    @property
    def topic_mark(self) -> str:
        """Name of the property that says which topic it is."""
        return TOPIC + self.value

    @property
    def reread_mark(self) -> str:
        """Name of the property that says how far the operator had its records read again."""
        return REREAD_TO + self.value


class Reached(msgspec.Struct, frozen=True):
    """How much of one topic a table holds."""

    topic: str
    """Its name and id."""
    offsets: Offsets


class TableState(msgspec.Struct, frozen=True):
    """What a table says of itself."""

    sources: Mapping[Source, Reached]
    """What it was filled from so far; a source it never heard of is not there."""
    batch_id: str
    coverage: Coverage
    reread_to: Mapping[Source, Offsets] = {}
    """Offsets below which records are read again by the operator's wish: ids the table holds
    already are expected there. What was reached stays named; it is said of offsets passed."""


class Verdict(Enum):
    """What became of a commit that raised."""

    LANDED = "landed"
    APPEND_AGAIN = "append_again"
    ANOTHER_WRITER = "another_writer"


def read_state(
    *, properties: Mapping[str, str], summary: Mapping[str, str] | None, rows: int | None
) -> TableState:
    """Return what the table says, checked against itself.

    Args:
        properties: The table's properties.
        summary: Summary of its current snapshot, or None on an empty table.
        rows: Rows the snapshot claims to hold; None where it does not say, as it may.

    Raises:
        StopError: If the two places that hold the offsets differ, a table with rows has none, or
            one of them cannot be read: appending to such a table could double or lose rows.
    """
    if summary is None:
        return TableState({}, "", Coverage())
    told = summary.get(OFFSETS), summary.get(BATCH_ID)
    kept = properties.get(OFFSETS), properties.get(BATCH_ID)
    if None in told or None in kept:
        if rows == 0:
            return TableState({}, "", Coverage())
        count = "an unknown number of" if rows is None else rows
        raise StopError(
            f"the table holds {count} rows but not the Kafka offsets they came from: another "
            "program wrote to it. Name another lake (K2_LAKE_DIR), or roll the table back to its "
            f"last snapshot with {OFFSETS} in the summary"
        )
    repairs_told = summary.get(Source.REPAIRS.offsets_mark)
    repairs_kept = properties.get(Source.REPAIRS.offsets_mark)
    # A version that knew no repairs leaves them out of its summaries and their property as it was.
    if told != kept or repairs_told not in (None, repairs_kept):
        raise StopError(
            f"the table's snapshot says offsets {told[0]} and of repairs {repairs_told} (batch "
            f"{told[1]}), its properties say {kept[0]} and {repairs_kept} (batch {kept[1]}): "
            "another program changed one of them. Roll the table back to its last snapshot where "
            "both agree"
        )
    return TableState(
        {
            source: Reached(
                properties.get(source.topic_mark, ""),
                _mark(properties, source.offsets_mark, decode_offsets),
            )
            for source in Source
            if source.offsets_mark in properties
        },
        told[1] or "",
        coverage_of(properties),
        {
            source: _mark(properties, source.reread_mark, decode_offsets)
            for source in Source
            if source.reread_mark in properties
        },
    )


def coverage_of(properties: Mapping[str, str]) -> Coverage:
    """Return the ids a table covers, as its properties say.

    Raises:
        StopError: If they cannot be read.
    """
    return _mark(properties, COVERAGE, decode_coverage)


def _mark(properties: Mapping[str, str], name: str, decode: Callable[[str], T]) -> T:
    try:
        return decode(properties.get(name, "{}"))
    except (msgspec.DecodeError, ValueError) as exc:
        raise StopError(
            f"the table's property {name} cannot be read ({exc}): another program changed it. Set "
            "it to what an earlier metadata file of the table says, or roll the table back to that"
        ) from exc


def after_failure(state: TableState, *, before: TableState, batch_id: str) -> Verdict:
    """Say what a reloaded table shows of a commit that raised.

    Args:
        state: The table now.
        before: The table when the commit was prepared.
        batch_id: Of the commit in question.
    """
    if state.batch_id == batch_id:
        return Verdict.LANDED
    if _all_offsets(state) == _all_offsets(before):
        return Verdict.APPEND_AGAIN
    return Verdict.ANOTHER_WRITER


def offset_marks(sources: Mapping[Source, Reached], batch_id: str) -> dict[str, str]:
    """Return what a commit puts into its snapshot's summary, and into the table's properties."""
    marks = {
        source.offsets_mark: encode_offsets(reached.offsets) for source, reached in sources.items()
    }
    return {**marks, BATCH_ID: batch_id}


def topic_marks(sources: Mapping[Source, Reached]) -> dict[str, str]:
    """Return the properties that say which topics these are."""
    return {source.topic_mark: reached.topic for source, reached in sources.items()}


def reread_marks(reread_to: Mapping[Source, Offsets]) -> dict[str, str]:
    """Return the properties that say how far records are read again."""
    return {source.reread_mark: encode_offsets(offsets) for source, offsets in reread_to.items()}


def encode_offsets(offsets: Offsets) -> str:
    """Return offsets as the JSON text a snapshot summary holds."""
    return json.dumps({str(partition): offsets[partition] for partition in sorted(offsets)})


def decode_offsets(text: str) -> Offsets:
    """Return offsets from a snapshot summary."""
    return msgspec.json.decode(text, type=Offsets)


def decode_coverage(text: str) -> Coverage:
    """Return a coverage from a table property."""
    return Coverage(msgspec.json.decode(text, type=dict[str, list[tuple[int, int]]]))


def encode_coverage(coverage: Coverage) -> str:
    """Return a coverage as the JSON text of a table property."""
    return json.dumps(coverage.as_pairs(), ensure_ascii=False)


def _all_offsets(state: TableState) -> dict[Source, Offsets]:
    return {source: reached.offsets for source, reached in state.sources.items()}
