"""``k2 positions``: where each tape stands, and how to rebuild that."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App
from rich.console import Console

from k2.cli.output import TEXT, Output, print_json, print_table
from k2.cli.session import ONE_FLAG, session
from k2.ingestion.supervision import ExitCode
from k2.settings import SettingsError

if TYPE_CHECKING:
    from k2.ingestion.positions_look import ShardShown
    from k2.kafka.position import ShardPosition

positions = App(
    name="positions", help="Where each tape stands, and how to rebuild that.", help_epilogue=""
)


@positions.command(name="show")
def positions_show(
    *,
    kafka_bootstrap: str | None = None,
    state_dir: Path | None = None,
    output: Output = TEXT,
) -> int:
    """Show where each symbol's tape stands: its ends, open gaps, backfills; and what it is of.

    Examples: `k2 positions show`, `k2 positions show --json`.

    Args:
        kafka_bootstrap: Kafka's host:port (KAFKA_BOOTSTRAP).
        state_dir: Where `k2 up` kept everything (K2_STATE_DIR, default var).
        output: Text for people, or JSON.
    """
    from k2.ingestion.positions_look import show_positions  # noqa: PLC0415 - `k2 --help` stays fast

    settings = session({"kafka_bootstrap": kafka_bootstrap, "state_dir": state_dir})
    _print_positions(show_positions(settings), as_json=output.as_json)
    return ExitCode.CLEAN


@positions.command(name="rebuild")
def positions_rebuild(
    *,
    from_topic: Annotated[bool, ONE_FLAG] = False,
    from_lake: Annotated[bool, ONE_FLAG] = False,
    kafka_bootstrap: str | None = None,
    lake: Path | None = None,
    state_dir: Path | None = None,
    output: Output = TEXT,
) -> int:
    """Write the positions anew. Stop every `k2 stream` first, standbys too.

    Examples: `k2 positions rebuild --from-topic` (.positions was lost or disagrees),
    `k2 positions rebuild --from-lake` (Kafka was lost, the lake is intact).

    Args:
        from_topic: From the trades, repairs and gaps topics.
        from_lake: From the lake; the trades topic must be empty.
        kafka_bootstrap: Kafka's host:port (KAFKA_BOOTSTRAP).
        lake: The lake's folder (K2_LAKE_DIR, default: that of the last `k2 up`).
        state_dir: Where `k2 up` kept everything (K2_STATE_DIR, default var).
        output: Text for people, or JSON.
    """
    from k2.ingestion.repair import (  # noqa: PLC0415 - `k2 --help` stays fast
        rebuild_from_lake,
        rebuild_from_topic,
    )

    if from_topic == from_lake:
        raise SettingsError("positions rebuild: expected one of --from-topic and --from-lake")
    settings = session(
        {"kafka_bootstrap": kafka_bootstrap, "lake_dir": lake, "state_dir": state_dir}
    )
    rebuilt = rebuild_from_topic(settings) if from_topic else rebuild_from_lake(settings)
    _print_positions(rebuilt, as_json=output.as_json)
    return ExitCode.CLEAN


def _print_positions(shards: Sequence["ShardShown"], *, as_json: bool) -> None:
    if as_json:
        print_json(shards)
        return
    for one in shards:
        identity, position = one.record.identity, one.record.position
        if identity is None:
            _print(f"shard {one.shard}: nothing recorded yet")
        else:
            _print(
                f"shard {one.shard}: {identity.venue} {identity.environment} "
                f"{identity.stream_kind}, {identity.partitions} partition(s), "
                f"symbols {' '.join(identity.symbols)}"
            )
        if position is not None:
            print_table(
                ["symbol", "first id", "last id written", "next id", "open gaps", "open ids"],
                [
                    (symbol, where.first_id, where.last_id, where.next_id, *_open(position, symbol))
                    for symbol, where in sorted(position.symbols.items())
                ],
            )
            active = identity.symbols if identity is not None else []
            for symbol, from_id in sorted(position.backfills.items()):
                if symbol in active:
                    _print(f"backfill of {symbol} runs, down to id {from_id}")
                else:
                    _print(
                        f"backfill of {symbol}, down to id {from_id}, waits: {symbol} is not "
                        f"recorded now (`k2 symbols add {symbol}`)"
                    )
        for request in one.record.requests:
            _print(f"backfill of {request.symbol} is asked for, down to id {request.from_id}")


def _open(position: "ShardPosition", symbol: str) -> tuple[int, int]:
    lengths = [len(gap.ids) for gap in position.open_gaps if gap.symbol == symbol]
    return len(lengths), sum(lengths)


def _print(text: str) -> None:
    Console().print(text, markup=False, highlight=False)
