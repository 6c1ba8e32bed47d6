"""A proof for people: a line per symbol, what is missing, the verdict."""

from rich import box
from rich.console import Console
from rich.table import Table

from k2.lake.freshness import in_words, row_ages
from k2.lake.proof import Proof

REPORT_WIDTH = 120
FULL_WIDTH = 112
_NUMBERS_NARROW = ("ids", "last id", "declared", "missing", "duplicates", "newest row")
_NUMBERS = (
    *("ids", "distinct", "first id", "last id"),
    *("declared", "missing", "duplicates", "stream", "newest row"),
)


def show_proof(console: Console, proof: Proof, *, now_us: int) -> None:
    """Print a proof: a line per symbol, then the age of the newest row, then the verdict."""
    ages = {one.symbol: one.age_s for one in row_ages(proof, now_us=now_us)}
    table = Table(title="k2 verify", title_justify="left", box=box.SIMPLE_HEAD)
    if not console.is_terminal:  # in a pipe or a log no digit is to be lost for want of width
        console = Console(file=console.file, width=REPORT_WIDTH)
    numbers = _NUMBERS if console.width >= FULL_WIDTH else _NUMBERS_NARROW
    table.add_column("symbol", no_wrap=True)
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    for one in proof.symbols:
        cells = {
            "ids": f"{one.rows:,}",
            "distinct": f"{one.distinct:,}",
            "first id": str(one.first_id),
            "last id": str(one.last_id),
            "declared": str(one.declared),
            "missing": str(one.missing),
            "duplicates": str(one.duplicates),
            "stream": f"{one.stream_rows / one.rows:.1%}",
            "newest row": f"{in_words(ages[one.symbol])} ago",
        }
        table.add_row(one.symbol, *(cells[name] for name in numbers))
    console.print(table)
    for one in proof.symbols:
        for ids in one.missing_ranges:
            console.print(f"{one.symbol}: ids {ids.first_id}..{ids.last_id} are missing")
    for symbol in proof.without_rows:
        console.print(f"{symbol}: configured, but no rows")
    if ages:
        console.print(f"newest row {in_words(min(ages.values()))} ago", highlight=False)
    total = sum(one.distinct for one in proof.symbols)
    declared = sum(one.declared for one in proof.symbols)
    duplicates = sum(one.duplicates for one in proof.symbols)
    verdict = "complete" if proof.complete else "NOT COMPLETE"
    console.print(
        f"{verdict}: {total:,} ids, {duplicates:,} duplicates, {declared:,} declared",
        style="bold green" if proof.complete else "bold red",
        highlight=False,
    )
