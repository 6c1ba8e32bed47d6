"""``k2 tail``: what the trades topic holds."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter, validators
from rich.console import Console

from k2.cli.output import TEXT, Output, print_json
from k2.cli.session import Symbols, session, split_symbols
from k2.ingestion.supervision import ExitCode


def tail(
    *,
    count: Annotated[
        int, Parameter(name=["--count", "-n"], validator=validators.Number(gte=1))
    ] = 10,
    follow: Annotated[bool, Parameter(name=["--follow", "-f"], negative="")] = False,
    symbols: Symbols = None,
    kafka_bootstrap: str | None = None,
    schema_registry: str | None = None,
    state_dir: Path | None = None,
    output: Output = TEXT,
) -> int:
    """Show the newest committed records of the topic, decoded.

    Examples: `k2 tail`, `k2 tail -n 100 --symbols BTCUSDT --json`, `k2 tail --follow`.

    Args:
        count: How many records before now.
        follow: Go on with what arrives, until Ctrl-C.
        symbols: Only these, of the newest records.
        kafka_bootstrap: Kafka's host:port (KAFKA_BOOTSTRAP).
        schema_registry: The registry's address (SCHEMA_REGISTRY_URL).
        state_dir: Where `k2 up` kept everything (K2_STATE_DIR, default var).
        output: Text for people, or JSON.
    """
    from k2.ingestion.kafka_reach import require_kafka  # noqa: PLC0415 - `k2 --help` stays fast
    from k2.ingestion.known_symbols import require_known  # noqa: PLC0415
    from k2.ingestion.positions_look import find_room  # noqa: PLC0415
    from k2.kafka.tail import tail_records  # noqa: PLC0415

    settings = session(
        {
            "kafka_bootstrap": kafka_bootstrap,
            "schema_registry_url": schema_registry,
            "state_dir": state_dir,
        }
    )
    wanted = split_symbols(symbols)
    require_kafka(settings.kafka_bootstrap)
    if wanted:
        require_known(find_room(settings), wanted)
    console = Console()
    seen = shown = 0
    for record in tail_records(
        settings.kafka,
        settings.registry,
        topic_prefix=settings.topic_prefix,
        count=count,
        follow=follow,
    ):
        seen += 1
        if wanted and record.get("symbol") not in wanted:
            continue
        shown += 1
        if output.as_json:
            print_json(record, indent=False)
        elif "error" in record:
            console.print(f"offset {record['offset']}: {record['error']}", markup=False)
        else:
            console.print(
                f"{record['trade_ts_us']:%H:%M:%S.%f}  {record['symbol']:<12}"
                f" {record['source_sequence']:>14}  {record['taker_side']:<4}"
                f" {record['price'].normalize():f} x {record['quantity'].normalize():f}"
                f"  {record['origin'].lower()}",
                markup=False,
                highlight=False,
            )
    if not seen:
        _remark("the topic holds no record yet")
    elif not shown:
        them = " ".join(sorted(wanted))
        _remark(f"none of the newest {seen} records is of {them}: look further back with -n")
    return ExitCode.CLEAN


def _remark(text: str) -> None:
    """Say something beside the answer, which may be read by a program."""
    Console(stderr=True).print(text, markup=False, highlight=False)
