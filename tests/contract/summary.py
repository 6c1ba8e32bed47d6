"""What covers the rows of the operations contract, for people."""

from collections.abc import Iterator, Sequence

from contract.listing import Row, exists

WIDTH = 60


def lines(rows: Sequence[Row]) -> Iterator[str]:
    """Yield a line for each row, then how many are covered how."""
    for row in rows:
        yield f"{row.name:<5} {row.what[:WIDTH]:<{WIDTH}} {told(row)}"
    tested = [row for row in rows if row.tests]
    owed = [row for row in rows if row.owed]
    yield (
        f"{len(rows)} rows: {len(tested)} have tests ({sum(bool(r.owed) for r in tested)} of them "
        f"owe a part), {sum(not r.tests and bool(r.owed) for r in rows)} are owed whole, "
        f"{len([r for r in rows if r.correction])} differ by a correction, "
        f"{len(uncovered(rows))} have nothing"
    )
    for issue in sorted({row.owed for row in owed}):
        names = " ".join(row.name for row in owed if row.owed == issue)
        yield f"owed to the {issue} issue: {names}"


def told(row: Row) -> str:
    """Return what covers a row."""
    parts = [f"{len(row.tests)} tests"] if row.tests else []
    parts += [f"differs: {row.differs}"] if row.differs else []
    parts += [f"owed: {row.owed}"] if row.owed else []
    parts += [f"NO SUCH TEST {test}" for test in row.tests if not exists(test)]
    return "; ".join(parts) or "NOTHING"


def uncovered(rows: Sequence[Row]) -> list[Row]:
    """Return the rows that nothing covers."""
    return [row for row in rows if not (row.tests or row.differs or row.owed)]
