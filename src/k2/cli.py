"""The command line: parse, build, run, exit code."""

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from cyclopts import App, CycloptsError, Parameter, validators
from rich.console import Console
from rich.table import Table

from k2 import __version__
from k2.errors import K2Error
from k2.ingestion.supervision import ExitCode
from k2.settings import SESSION_FILE, Settings, SettingsError, load_settings

_ONE_FLAG = Parameter(negative="")

app = App(
    name="k2",
    version=__version__,
    help="A complete, ordered, duplicate-free, provable record of Binance trades.",
    help_epilogue=(
        "Examples:\n\n"
        "  k2 up                      everything on this machine, with a live view\n\n"
        "  k2 verify                  is the record complete?\n\n"
        '  k2 query "SELECT symbol, count(*) FROM trades GROUP BY symbol"'
    ),
)


# Named by import path: imported only when asked for.
app.command(
    "k2.ingestion.binance_client:app",
    name="stream",
    help="Record trades: Binance socket to Kafka, each id once, in order.",
)
app.command(
    "k2.ingestion.archive:app",
    name="archive",
    help="Archive trades: Kafka topic to Iceberg table, each id once.",
)
app.command(
    "k2.simulator.command:app",
    name="exchange",
    help="Run the built-in exchange: Binance's streams and REST on one local port.",
)
schema = App(name="schema", help="The trade schema and the registry.", help_epilogue="")
positions = App(
    name="positions", help="Where each tape ends, and how to rebuild that.", help_epilogue=""
)
app.command(schema)
app.command(positions)


@Parameter(name="*")
@dataclass(frozen=True)
class Output:
    """How a command answers: ``--json`` and ``--format json`` are the same."""

    json: Annotated[bool, Parameter(negative="", help="Print JSON.")] = False
    format: Annotated[Literal["text", "json"], Parameter(help="text or json.")] = "text"

    @property
    def as_json(self) -> bool:
        """Whether a program reads the answer."""
        return self.json or self.format == "json"


_TEXT = Output()


def _not_empty(_type: Any, value: str) -> None:
    if not value.strip():
        raise ValueError("expected one SQL statement")


RATE_MAX = 50_000
COLUMNS_ABREAST_MAX = 8
"""Rows with more columns are printed one below the other."""

Port = Annotated[int, Parameter(validator=validators.Number(gte=1, lte=65535))]


@app.command(help_epilogue="")
def up(
    *,
    symbols: Annotated[list[str] | None, Parameter(consume_multiple=True, negative="")] = None,
    stream: Literal["aggTrade", "trade"] | None = None,
    exchange: Literal["auto", "binance", "built-in"] = "auto",
    tape: Path | None = None,
    speed: str | None = None,
    rate: float = 100.0,
    run_for: Annotated[str | None, Parameter(name=["--for"])] = None,
    stack_only: Annotated[bool, _ONE_FLAG] = False,
    kafka_port: Port | None = None,
    registry_port: Port | None = None,
    ports: Literal["fixed", "auto"] = "fixed",
    advertise: str | None = None,
    advertised_port: Port | None = None,
    state_dir: Path | None = None,
) -> int:
    """Start everything on this machine and watch trades arrive in the lake.

    Kafka, schema registry, capture and archive run until Ctrl-C, which stops them in order and
    ends with the verdict of `k2 verify`. Trades come from Binance when it can be reached, else
    from the built-in exchange, in topics and a lake of their own.

    Examples: `k2 up`, `k2 up --for 60s --ports auto`, `k2 up --stack-only --kafka-port 9192`,
    `k2 up --tape btcusdt.ndjson.gz --stream trade --speed 10`.

    Args:
        symbols: Symbols to record (BINANCE_SYMBOLS); with --tape those in the recording.
        stream: aggTrade or trade (BINANCE_STREAM).
        exchange: auto, binance or built-in.
        tape: Play this recording instead of trading.
        speed: With --tape: how much faster than recorded: 1 (default), 10, max.
        rate: Trades per second of the built-in exchange, over all its symbols.
        run_for: Stop by itself after so long: 60s, 5m, 1h.
        stack_only: Only Kafka and the registry.
        kafka_port: Kafka's port (default 9092).
        registry_port: The registry's port (default 8081).
        ports: auto picks a free port for all that are not given, so that stacks live side by side.
        advertise: Host by which containers reach this machine; adds a listener for them.
        advertised_port: Port of that listener (default 19092).
        state_dir: Where everything is kept (K2_STATE_DIR, default var).
    """
    from k2.local.stack import (  # noqa: PLC0415 - `k2 --help` stays fast
        ADVERTISED_PORT,
        KAFKA_PORT,
        REGISTRY_PORT,
    )
    from k2.local.up import UpOptions, run_up  # noqa: PLC0415

    auto = ports == "auto"
    settings = load_settings({"symbols": symbols, "stream": stream, "state_dir": state_dir})
    if tape is not None and not tape.is_file():
        raise SettingsError(f"--tape {tape}: expected a recording, there is no such file")
    if speed is not None and tape is None:
        raise SettingsError(f"--speed {speed}: goes with --tape; --rate sets how much is traded")
    if speed not in (None, "max") and not _is_positive(speed or ""):
        raise SettingsError(f"--speed {speed}: expected a number above 0, or max")
    if not 0 < rate <= RATE_MAX:
        raise SettingsError(f"--rate {rate:g}: expected trades per second, above 0 to {RATE_MAX}")
    return run_up(
        UpOptions(
            settings=settings,
            symbols_given=symbols is not None,
            kafka_port=kafka_port or (None if auto else KAFKA_PORT),
            registry_port=registry_port or (None if auto else REGISTRY_PORT),
            advertise=advertise,
            advertised_port=advertised_port or (None if auto else ADVERTISED_PORT),
            auto_ports=auto,
            stack_only=stack_only,
            exchange=exchange,
            tape=tape,
            speed=speed or "1",
            rate=rate,
            run_for_s=None if run_for is None else _duration_s(run_for),
        )
    )


@app.command(help_epilogue="")
def down(*, delete: Annotated[bool, _ONE_FLAG] = False, state_dir: Path | None = None) -> int:
    """Stop what a killed `k2 up` left running; with --delete remove its data too.

    Examples: `k2 down`, `k2 down --delete`.

    Args:
        delete: Remove the state directory: Kafka's data, the registry's, and the LAKE.
        state_dir: The state directory (K2_STATE_DIR, default var).
    """
    from k2.local.down import run_down  # noqa: PLC0415 - `k2 --help` stays fast

    settings = load_settings({"state_dir": state_dir})
    return run_down(settings.state_dir, delete=delete)


@app.command(help_epilogue="")
def verify(
    *,
    symbols: Annotated[list[str] | None, Parameter(consume_multiple=True, negative="")] = None,
    lake: Path | None = None,
    state_dir: Path | None = None,
    output: Output = _TEXT,
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

    settings = _session({"symbols": symbols, "lake_dir": lake, "state_dir": state_dir})
    proof = prove(_reader(settings), configured=settings.symbols)
    if output.as_json:
        _print_json(proof)
    else:
        show_proof(Console(), proof)
    return ExitCode.CLEAN if proof.complete else ExitCode.FAILED


@app.command(help_epilogue="")
def query(
    sql: Annotated[str, Parameter(validator=_not_empty)],
    *,
    lake: Path | None = None,
    state_dir: Path | None = None,
    output: Output = _TEXT,
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
    settings = _session({"lake_dir": lake, "state_dir": state_dir})
    answer = _reader(settings).run(sql)
    if output.as_json:
        _print_json([dict(zip(answer.columns, row, strict=True)) for row in answer.rows])
    elif len(answer.columns) > COLUMNS_ABREAST_MAX:
        for row in answer.rows:
            _print_table(["column", "value"], list(zip(answer.columns, row, strict=True)))
    else:
        _print_table(answer.columns, answer.rows)
    return ExitCode.CLEAN


@app.command(help_epilogue="")
def tail(
    *,
    count: Annotated[
        int, Parameter(name=["--count", "-n"], validator=validators.Number(gte=1))
    ] = 10,
    follow: Annotated[bool, Parameter(name=["--follow", "-f"], negative="")] = False,
    symbols: Annotated[list[str] | None, Parameter(consume_multiple=True, negative="")] = None,
    kafka_bootstrap: str | None = None,
    schema_registry: str | None = None,
    state_dir: Path | None = None,
    output: Output = _TEXT,
) -> int:
    """Show the newest committed records of the topic, decoded.

    Examples: `k2 tail`, `k2 tail -n 100 --symbols BTCUSDT --json`, `k2 tail --follow`.

    Args:
        count: How many records before now.
        follow: Go on with what arrives, until Ctrl-C.
        symbols: Only these.
        kafka_bootstrap: Kafka's host:port (KAFKA_BOOTSTRAP).
        schema_registry: The registry's address (SCHEMA_REGISTRY_URL).
        state_dir: Where `k2 up` kept everything (K2_STATE_DIR, default var).
        output: Text for people, or JSON.
    """
    from k2.kafka.tail import tail_records  # noqa: PLC0415 - `k2 --help` stays fast

    settings = _session(
        {
            "kafka_bootstrap": kafka_bootstrap,
            "schema_registry_url": schema_registry,
            "state_dir": state_dir,
        }
    )
    wanted = {name.upper() for part in symbols or [] for name in part.split(",")}
    console = Console()
    for record in tail_records(
        bootstrap=settings.kafka_bootstrap,
        registry_url=settings.schema_registry_url,
        topic_prefix=settings.topic_prefix,
        count=count,
        follow=follow,
    ):
        if wanted and record.get("symbol") not in wanted:
            continue
        if output.as_json:
            _print_json(record, indent=False)
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
    return ExitCode.CLEAN


@schema.command(name="register")
def schema_register(
    *,
    schema_registry: str | None = None,
    state_dir: Path | None = None,
    output: Output = _TEXT,
) -> int:
    """Register the trade schema under TOPIC-value (again is fine).

    Args:
        schema_registry: The registry's address (SCHEMA_REGISTRY_URL).
        state_dir: Where `k2 up` kept everything (K2_STATE_DIR, default var).
        output: Text for people, or JSON.
    """
    subject, registry = _registry(schema_registry, state_dir)
    schema_id = registry.register(subject, _schema_text())
    found = {"subject": subject, "id": schema_id}
    _print_either(found, f"{subject}: registered with id {schema_id}", output.as_json)
    return ExitCode.CLEAN


@schema.command(name="check")
def schema_check(
    *,
    schema_registry: str | None = None,
    state_dir: Path | None = None,
    output: Output = _TEXT,
) -> int:
    """Say whether this version's schema may follow the registered one. Exit 1 when it may not.

    Args:
        schema_registry: The registry's address (SCHEMA_REGISTRY_URL).
        state_dir: Where `k2 up` kept everything (K2_STATE_DIR, default var).
        output: Text for people, or JSON.
    """
    subject, registry = _registry(schema_registry, state_dir)
    compatible = registry.compatible(subject, _schema_text())
    found = {"subject": subject, "compatible": compatible}
    verdict = "compatible" if compatible else "NOT compatible"
    _print_either(found, f"{subject}: {verdict}", output.as_json)
    return ExitCode.CLEAN if compatible else ExitCode.FAILED


@schema.command(name="show")
def schema_show(
    *,
    registered: Annotated[bool, _ONE_FLAG] = False,
    schema_registry: str | None = None,
    state_dir: Path | None = None,
    output: Output = _TEXT,
) -> int:
    """Show the schema's fields and what each means.

    Args:
        registered: Show the registry's newest version instead of this program's.
        schema_registry: The registry's address (SCHEMA_REGISTRY_URL).
        state_dir: Where `k2 up` kept everything (K2_STATE_DIR, default var).
        output: Text for people, or JSON.
    """
    text = _schema_text()
    if registered:
        subject, registry = _registry(schema_registry, state_dir)
        latest = registry.latest(subject)
        if latest is None:
            raise K2Error(f"{subject} is not registered: run `k2 schema register`")
        text = latest.schema_text
    parsed = msgspec.json.decode(text)
    if output.as_json:
        _print_json(parsed)
        return ExitCode.CLEAN
    rows = [(f["name"], _type_name(f["type"]), f.get("doc", "")) for f in parsed["fields"]]
    _print_table(["field", "type", "meaning"], rows)
    return ExitCode.CLEAN


@positions.command(name="show")
def positions_show(
    *,
    kafka_bootstrap: str | None = None,
    state_dir: Path | None = None,
    output: Output = _TEXT,
) -> int:
    """Show where each symbol's tape ends, and what the tape is a tape of.

    Args:
        kafka_bootstrap: Kafka's host:port (KAFKA_BOOTSTRAP).
        state_dir: Where `k2 up` kept everything (K2_STATE_DIR, default var).
        output: Text for people, or JSON.
    """
    from k2.ingestion.repair import show_positions  # noqa: PLC0415 - `k2 --help` stays fast

    settings = _session({"kafka_bootstrap": kafka_bootstrap, "state_dir": state_dir})
    _print_positions(show_positions(settings), as_json=output.as_json)
    return ExitCode.CLEAN


@positions.command(name="rebuild")
def positions_rebuild(
    *,
    from_topic: Annotated[bool, _ONE_FLAG] = False,
    from_lake: Annotated[bool, _ONE_FLAG] = False,
    kafka_bootstrap: str | None = None,
    lake: Path | None = None,
    state_dir: Path | None = None,
    output: Output = _TEXT,
) -> int:
    """Write the positions anew. Stop `k2 stream` first: this takes the shards from it.

    Examples: `k2 positions rebuild --from-topic` (.positions was lost or disagrees),
    `k2 positions rebuild --from-lake` (Kafka was lost, the lake is intact).

    Args:
        from_topic: The tape ends where the trades topic ends.
        from_lake: The tape ends where the lake ends; the trades topic must be empty.
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
    settings = _session(
        {"kafka_bootstrap": kafka_bootstrap, "lake_dir": lake, "state_dir": state_dir}
    )
    rebuilt = rebuild_from_topic(settings) if from_topic else rebuild_from_lake(settings)
    _print_positions(rebuilt, as_json=output.as_json)
    return ExitCode.CLEAN


def _print_positions(shards: Any, *, as_json: bool) -> None:
    if as_json:
        _print_json(shards)
        return
    for one in shards:
        identity = one.record.identity
        if identity is None:
            Console().print(f"shard {one.shard}: nothing recorded yet", highlight=False)
            continue
        Console().print(
            f"shard {one.shard}: {identity.venue} {identity.environment} {identity.stream_kind}, "
            f"{identity.partitions} partition(s), symbols {' '.join(identity.symbols)}",
            markup=False,
            highlight=False,
        )
        rows = [(s, p.next_id, p.last_id) for s, p in sorted((one.record.position or {}).items())]
        _print_table(["symbol", "next id", "last id written"], rows)


def _type_name(avro_type: Any) -> str:
    if isinstance(avro_type, list):
        return " or ".join(_type_name(part) for part in avro_type)
    if isinstance(avro_type, dict):
        if avro_type.get("logicalType") == "decimal":
            return f"decimal({avro_type['precision']},{avro_type['scale']})"
        return str(avro_type.get("logicalType") or avro_type.get("name") or avro_type["type"])
    return str(avro_type)


def _schema_text() -> str:
    from k2.kafka.encoding import SCHEMA_TEXT  # noqa: PLC0415 - `k2 --help` stays fast

    return SCHEMA_TEXT


def _registry(url: str | None, state_dir: Path | None) -> Any:
    from k2.kafka.registry import Registry  # noqa: PLC0415 - `k2 --help` stays fast
    from k2.kafka.topics import TopicNames  # noqa: PLC0415

    settings = _session({"schema_registry_url": url, "state_dir": state_dir})
    subject = TopicNames.of(settings.topic_prefix).subject
    return subject, Registry(settings.schema_registry_url)


def _reader(settings: Settings) -> Any:
    from k2.lake.query import LakeReader  # noqa: PLC0415 - `k2 --help` stays fast
    from k2.lake.tables import open_catalog  # noqa: PLC0415

    catalog = open_catalog(
        lake_dir=settings.lake_path, catalog_name=settings.lake_catalog, create=False
    )
    return LakeReader(catalog)


def _session(overrides: dict[str, Any]) -> Settings:
    """Return the settings, with what ``k2 up`` ran last in this state directory as their file."""
    state_dir = load_settings({"state_dir": overrides.get("state_dir")}).state_dir
    if overrides.get("kafka_bootstrap") or overrides.get("schema_registry_url"):
        # Somebody names another Kafka or registry: what ran here has no say in its topics.
        return load_settings(overrides)
    return load_settings(overrides, env_file=state_dir / SESSION_FILE)


def _is_positive(text: str) -> bool:
    try:
        return 0 < float(text) < 10**6
    except ValueError:
        return False


def _duration_s(text: str) -> float:
    units = {"s": 1, "m": 60, "h": 3600}
    number, unit = (text[:-1], text[-1]) if text[-1:] in units else (text, "s")
    try:
        seconds = float(number) * units[unit]
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 10**8:
        raise SettingsError(f"--for {text}: expected a duration such as 60s, 5m or 1h")
    return seconds


def _print_json(value: Any, *, indent: bool = True) -> None:
    encoded = msgspec.json.encode(value, enc_hook=str)
    if indent:
        encoded = msgspec.json.format(encoded, indent=2)
    sys.stdout.write(encoded.decode() + "\n")
    sys.stdout.flush()


def _print_either(value: Any, text: str, as_json: bool) -> None:
    if as_json:
        _print_json(value)
    else:
        Console().print(text, markup=False, highlight=False)


def _print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    width = shutil.get_terminal_size((160, 50)).columns
    table = Table(*columns)
    for row in rows:
        table.add_row(*("" if value is None else str(value) for value in row))
    Console(width=width).print(table)


def main() -> None:
    """Run one command; its exit code is the process's."""
    try:
        code = app(exit_on_error=False, print_error=False, result_action="return_value")
    except (CycloptsError, SettingsError) as exc:
        _fail(exc, ExitCode.CONFIGURATION)
    except K2Error as exc:
        _fail(exc, ExitCode.FAILED)
    except (KeyboardInterrupt, BrokenPipeError):
        sys.exit(130)
    sys.exit(code if isinstance(code, int) else ExitCode.CLEAN)


def _fail(exc: Exception, code: ExitCode) -> None:
    sys.stderr.write(f"k2: {exc}\n")
    sys.exit(code)
