"""The proof: for each symbol, every id between its first and last once, or declared.

A declared id counts as declared only while no row has it: repairs bring some of them after all.
It reads the table with its own code path (DuckDB over the files), not the writer's books.
"""

from collections.abc import Iterable

import msgspec

from k2.lake.query import LakeReader
from k2.market import IdRange
from k2.tape.ranges import without

MISSING_SHOWN = 20

_PER_SYMBOL = """
    SELECT symbol, count(*), count(DISTINCT source_sequence),
           min(source_sequence), max(source_sequence),
           count(*) FILTER (origin = 'STREAM'),
           arg_max(recv_ts_ns, source_sequence) // 1000
    FROM trades GROUP BY symbol ORDER BY symbol
"""

# The ids around each hole. Adding 1 to the highest id would be more than DuckDB's integers hold.
_JUMPS = """
    SELECT symbol, source_sequence, following
    FROM (
        SELECT symbol, source_sequence,
               lead(source_sequence) OVER (
                   PARTITION BY symbol ORDER BY source_sequence) AS following
        FROM trades
    )
    WHERE following - source_sequence > 1
    ORDER BY symbol, source_sequence
"""

# A repair needs no look: its row is in the table, or the id is as good as declared still.
_DECLARED = """
    SELECT symbol, first_id, last_id FROM gaps WHERE repaired_ts_us IS NULL
    ORDER BY symbol, first_id
"""


class SymbolProof(msgspec.Struct, frozen=True):
    """What the table holds of one symbol. Counts are of ids."""

    symbol: str
    rows: int
    distinct: int
    duplicates: int
    first_id: int | None
    last_id: int | None
    declared: int
    """Ids between first and last that a gap record covers and no row holds."""
    missing: int
    """Ids between first and last that neither a row nor a gap record covers."""
    missing_ranges: list[IdRange]
    """The first of them, at most 20 ranges."""
    stream_rows: int
    """Rows that came live; the others were healed by REST."""
    newest_ts_us: int
    """When the row with the highest id reached us: microseconds since the epoch, our clock."""

    @property
    def complete(self) -> bool:
        """Whether the promise holds for this symbol (which has rows)."""
        return self.rows > 0 and self.duplicates == 0 and self.missing == 0


class Proof(msgspec.Struct, frozen=True):
    """The verdict over a lake."""

    complete: bool
    symbols: list[SymbolProof]
    without_rows: list[str]
    """Configured symbols the table holds nothing of."""


def prove(reader: LakeReader, *, configured: Iterable[str]) -> Proof:
    """Check the promise for every symbol in the table and every configured one."""
    declared = _by_symbol(reader.run(_DECLARED).rows)
    jumps = _by_symbol(
        (symbol, before + 1, after - 1) for symbol, before, after in reader.run(_JUMPS).rows
    )
    symbols = []
    for symbol, rows, distinct, first_id, last_id, stream_rows, newest_ts_us in reader.run(
        _PER_SYMBOL
    ).rows:
        absent = jumps.get(symbol, [])
        missing = without(absent, declared.get(symbol, []))
        missing_count = sum(len(ids) for ids in missing)
        symbols.append(
            SymbolProof(
                symbol=symbol,
                rows=rows,
                distinct=distinct,
                duplicates=rows - distinct,
                first_id=first_id,
                last_id=last_id,
                declared=sum(len(ids) for ids in absent) - missing_count,
                missing=missing_count,
                missing_ranges=missing[:MISSING_SHOWN],
                stream_rows=stream_rows,
                newest_ts_us=newest_ts_us,
            )
        )
    held = {one.symbol for one in symbols}
    without_rows = sorted(set(configured) - held)
    complete = bool(symbols) and not without_rows and all(one.complete for one in symbols)
    return Proof(complete, symbols, without_rows)


def _by_symbol(rows: Iterable[tuple[str, int, int]]) -> dict[str, list[IdRange]]:
    found: dict[str, list[IdRange]] = {}
    for symbol, first_id, last_id in rows:
        found.setdefault(symbol, []).append(IdRange(first_id, last_id))
    return found
