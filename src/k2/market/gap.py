"""Ids that are declared absent from the tape."""

from enum import Enum

import msgspec

from k2.market.ids import IdRange


class GapClass(Enum):
    """Why no source could deliver an id."""

    MISSING = "missing"
    """No source had it."""
    REJECTED = "rejected"
    """It came and could not be represented; the dead letter holds it as it came."""
    VOID = "void"
    """The exchange voided the row (zero price and quantity, fills -1)."""


class Gap(msgspec.Struct, frozen=True):
    """A declared gap: ``ids`` of ``symbol`` are covered by this record instead of trades."""

    symbol: str
    ids: IdRange
    gap_class: GapClass
    reason: str
