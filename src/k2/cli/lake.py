"""``k2 verify`` and ``k2 query``: what the lake holds."""

import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
from cyclopts import Parameter, validators
from rich.console import Console

from k2.cli.output import TEXT, Output, print_json, print_table
from k2.cli.session import Symbols, open_lake, session
from k2.errors import RejectError, StopError
from k2.ingestion.supervision import ExitCode
from k2.market.wanted import parse_names

COLUMNS_ABREAST_MAX = 8
"""Rows with more columns are printed one below the other."""


def _not_empty(_type: Any, value: str) -> None:
    if not value.strip():
        raise ValueError("expected one SQL statement")


def verify(
    *,
    symbols: Symbols = None,
    max_age: Annotated[float | None, Parameter(validator=validators.Number(gt=0))] = None,
    lake: Path | None = None,
    state_dir: Path | None = None,
    output: Output = TEXT,
) -> int:
    """Prove from the lake alone that each id is there once, or declared. Exit 1 when it is not.

    Every symbol in the lake is proved. Complete is not the same as fresh: the age of the newest
    rows is told, and judged with --max-age only.

    Examples: `k2 verify`, `k2 verify --symbols BTCUSDT --json`, `k2 verify --lake /data/lake`,
    `k2 verify --max-age 60 --symbols BTCUSDT`.

    Args:
        symbols: Symbols that must have rows, beside those that have some (default: those that are
            recorded, K2_SYMBOLS_FILE or BINANCE_SYMBOLS; of all:USDT those that have some).
        max_age: Exit 1 also when a symbol's newest row is older than so many seconds: any symbol
            of the lake, or with --symbols one of those.
        lake: The lake's folder (K2_LAKE_DIR, default: that of the last `k2 up`).
        state_dir: Where `k2 up` kept everything (K2_STATE_DIR, default var).
        output: Text for people, or JSON.
    """
    from k2.ingestion.symbols_file import wanted_symbols  # noqa: PLC0415 - fast `--help`
    from k2.lake.freshness import in_words, older_than, row_ages  # noqa: PLC0415
    from k2.lake.proof import prove  # noqa: PLC0415
    from k2.lake.report import show_proof  # noqa: PLC0415

    settings = session({"symbols": symbols, "lake_dir": lake, "state_dir": state_dir})
    try:
        wanted = wanted_symbols(settings) if symbols is None else parse_names(settings.symbols)
    except StopError as exc:  # it is about another machine's file, perhaps; the lake is here
        sys.stderr.write(f"{exc}; only symbols that have rows are judged\n")
        wanted = parse_names(())
    proof = prove(open_lake(settings), configured=wanted.names)
    now_us = time.time_ns() // 1000
    ages = row_ages(proof, now_us=now_us)
    judged = [
        one
        for one in ages
        # A symbol's name ends in its quote asset.
        if symbols is None
        or one.symbol in wanted.names
        or one.symbol.endswith(tuple(wanted.quotes))
    ]
    stale = [] if max_age is None else older_than(judged, age_max_s=max_age)
    if output.as_json:
        age_s = {one.symbol: one.age_s for one in ages}
        told = msgspec.to_builtins(proof)
        for one in told["symbols"]:
            one["newest_age_s"] = age_s[one["symbol"]]
        told["newest_age_s"] = ages[0].age_s if ages else None
        told["stale"] = [one.symbol for one in stale]
        print_json(told)
    else:
        show_proof(Console(), proof, now_us=now_us)
        for one in stale:
            # Rounded, 1.4 s would be the 1 s that was wanted.
            age = f"{one.age_s:.1f} s" if one.age_s < 10 else in_words(one.age_s)
            Console().print(
                f"{one.symbol}: newest row {age} ago, at most {max_age:g} s wanted",
                style="bold red",
                highlight=False,
            )
    return ExitCode.CLEAN if proof.complete and not stale else ExitCode.FAILED


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
    reader = open_lake(settings)
    answer = reader.run(sql)
    if output.as_json:
        _require_own_names(answer.columns)
        print_json([dict(zip(answer.columns, row, strict=True)) for row in answer.rows])
    elif len(answer.columns) > COLUMNS_ABREAST_MAX:
        for row in answer.rows:
            print_table(["column", "value"], list(zip(answer.columns, row, strict=True)))
    else:
        print_table(answer.columns, answer.rows)
    return ExitCode.CLEAN


def _require_own_names(columns: Sequence[str]) -> None:
    """Refuse what JSON cannot hold: of columns with one name only the last would be left."""
    if repeated := sorted(name for name, times in Counter(columns).items() if times > 1):
        raise RejectError(
            f"several columns are called {', '.join(repeated)}: name each with AS for --json"
        )
