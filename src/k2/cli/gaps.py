"""``k2 gaps``: what was declared missing, and what has become of it."""

from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from k2.cli.output import TEXT, Output, print_json, print_table
from k2.cli.session import Symbols, session, split_symbols
from k2.ingestion.supervision import ExitCode


def gaps(
    *,
    symbols: Symbols = None,
    kafka_bootstrap: str | None = None,
    state_dir: Path | None = None,
    output: Output = TEXT,
) -> int:
    """List the declared gaps: open (still looked for), repaired, or closed (they stay declared).

    Examples: `k2 gaps`, `k2 gaps --symbols BTCUSDT --json`.

    Args:
        symbols: Only these (default: all).
        kafka_bootstrap: Kafka's host:port (KAFKA_BOOTSTRAP).
        state_dir: Where `k2 up` kept everything (K2_STATE_DIR, default var).
        output: Text for people, or JSON.
    """
    from k2.ingestion.gap_list import list_gaps  # noqa: PLC0415 - `k2 --help` stays fast

    settings = session({"kafka_bootstrap": kafka_bootstrap, "state_dir": state_dir})
    found = list_gaps(settings, symbols=split_symbols(symbols))
    if output.as_json:
        print_json(found)
        return ExitCode.CLEAN
    if found.gaps:
        print_table(
            ["symbol", "first id", "last id", "ids", "class", "declared", "state", "repaired"],
            [
                (
                    *(one.symbol, one.first_id, one.last_id, one.ids, one.gap_class.value),
                    *(_time(one.declared_ts_us), one.state.value, _time(one.repaired_ts_us)),
                )
                for one in found.gaps
            ],
        )
    Console().print(
        f"{sum(one.ids for one in found.gaps):,} ids declared, {found.open_ids:,} open",
        highlight=False,
    )
    return ExitCode.CLEAN


def _time(ts_us: int | None) -> str:
    if ts_us is None:
        return ""
    return f"{datetime.fromtimestamp(ts_us / 1e6, UTC):%Y-%m-%d %H:%M:%SZ}"
