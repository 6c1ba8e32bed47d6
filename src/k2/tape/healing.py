"""PURE: what a page of REST rows does to a tape, and what it says about the ids it lacks."""

from collections.abc import Sequence

import msgspec

from k2.market import BadRow, Gap, GapClass, IdRange, Trade
from k2.tape.arbiter import Placed, SymbolTape

PAGE_ROWS = 1000
"""Rows of one REST page; the venue serves no more."""


class PagePlaced(msgspec.Struct, frozen=True):
    """What one page of rows came to, in tape order."""

    items: list[Placed | Gap]
    bad_rows: list[BadRow]
    """Rows behind the declared gaps in ``items``: each is a dead letter."""
    more: bool
    """The page was full, so REST probably has more right now."""
    lacking: IdRange | None
    """Ids below the page's first row that REST skipped and nobody has yet."""


def place_page(tape: SymbolTape, rows: Sequence[Trade | BadRow]) -> PagePlaced:
    """Offer a page to the tape.

    A row REST has but that cannot be represented is declared a gap there and then: REST is the
    last source, nothing better will come. A row REST *lacks* declares nothing here: its database
    may simply trail the stream.

    Args:
        tape: The symbol's tape; it moves forward.
        rows: Ascending by id, from the tape's ``next_id`` at the time of asking.
    """
    items: list[Placed | Gap] = []
    bad_rows: list[BadRow] = []
    for row in rows:
        if isinstance(row, Trade):
            tape.correct(row)
    for row in rows:
        if isinstance(row, Trade):
            items += tape.offer(row)
        elif row.source_id == tape.next_id:
            ids = IdRange(row.source_id, row.source_id)
            gap_class = GapClass.VOID if row.error_type == "void" else GapClass.REJECTED
            bad_rows.append(row)
            items.append(Gap(tape.symbol, ids, gap_class, row.error))
            items += tape.declare(ids)
    lacking = None
    if rows and tape.next_id is not None and rows[0].source_id > tape.next_id:
        # A copy held back is a source too: what is lacking ends before the first of them.
        last_id = rows[0].source_id - 1 if tape.hole is None else tape.hole.last_id
        lacking = IdRange(tape.next_id, min(rows[0].source_id - 1, last_id))
    return PagePlaced(items, bad_rows, len(rows) >= PAGE_ROWS, lacking)


def declare_missing(tape: SymbolTape, ids: IdRange, *, waited_s: float) -> list[Placed | Gap]:
    """Pass over ids that REST skipped for longer than the operator allows."""
    gap = Gap(tape.symbol, ids, GapClass.MISSING, f"REST lacked it for {waited_s:.0f} s")
    return [gap, *tape.declare(ids)]
