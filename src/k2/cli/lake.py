"""``k2 verify`` and ``k2 query``: what the lake holds."""

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich.console import Console

from k2.cli.output import TEXT, Output, print_json, print_table
from k2.cli.session import Symbols, open_lake, session
from k2.ingestion.supervision import ExitCode

COLUMNS_ABREAST_MAX = 8
"""Rows with more columns are printed one below the other."""


def _not_empty(_type: Any, value: str) -> None:
    if not value.strip():
        raise ValueError("expected one SQL statement")


def verify(
    *,
    symbols: Symbols = None,
    lake: Path | None = None,
    state_dir: Path | None = None,
    output: Output = TEXT,
) -> int:
    """Prove from the lake alone that each id is there once, or declared. Exit 1 when it is not.

    Examples: `k2 verify`, `k2 verify --symbols BTCUSDT --json`, `k2 verify --lake /data/lake`.

    Args:
        symbols: Symbols that must have rows (default: those `k2 up` ran with, or BINANCE_SYMBOLS).
        lake: The lake's folder (K2_LAKE_DIR, default: that of the last `k2 up`).
        state_dir: Where `k2 up` kept everything (K2_STATE_DIR, default var).
        output: Text for people, or JSON.
    """
    from k2.lake.proof import prove  # noqa: PLC0415 - `k2 --help` stays fast
    from k2.lake.report import show_proof  # noqa: PLC0415

    settings = session({"symbols": symbols, "lake_dir": lake, "state_dir": state_dir})
    proof = prove(open_lake(settings), configured=settings.symbols)
    if output.as_json:
        print_json(proof)
    else:
        show_proof(Console(), proof)
    return ExitCode.CLEAN if proof.complete else ExitCode.FAILED


def query(
    sql: Annotated[str, Parameter(validator=_not_empty)],
    *,
    lake: Path | None = None,
    state_dir: Path | None = None,
    output: Output = TEXT,
) -> int:
    """Run SQL (DuckDB) over the views `trades` and `gaps`.

    Examples: `k2 query "SELECT * FROM trades LIMIT 5"`,
    `k2 query "SELECT symbol, sum(price * quantity) FROM trades GROUP BY symbol" --json`.

    Args:
        sql: One statement.
        lake: The lake's folder (K2_LAKE_DIR, default: that of the last `k2 up`).
        state_dir: Where `k2 up` kept everything (K2_STATE_DIR, default var).
        output: Text for people, or JSON.
    """
    settings = session({"lake_dir": lake, "state_dir": state_dir})
    answer = open_lake(settings).run(sql)
    if output.as_json:
        print_json([dict(zip(answer.columns, row, strict=True)) for row in answer.rows])
    elif len(answer.columns) > COLUMNS_ABREAST_MAX:
        for row in answer.rows:
            print_table(["column", "value"], list(zip(answer.columns, row, strict=True)))
    else:
        print_table(answer.columns, answer.rows)
    return ExitCode.CLEAN
