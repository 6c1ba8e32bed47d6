"""``k2 symbols``: change what a running service records."""

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter
from rich.console import Console

from k2.cli.output import TEXT, Output, print_either, print_json, print_table
from k2.cli.session import ONE_FLAG, session, split_symbols
from k2.ingestion.supervision import ExitCode
from k2.market.wanted import Return, parse_lines, with_added, with_removed
from k2.settings import SettingsError

symbols = App(
    name="symbols",
    help="Change what running services record, without a restart (K2_SYMBOLS_FILE).",
    help_epilogue=(
        "Examples:\n\n"
        "  k2 symbols add SOLUSDT XRPUSDT\n\n"
        "  k2 symbols remove XRPUSDT\n\n"
        "  k2 symbols list --json\n\n"
        "All instances watch the same file and follow within a second or two."
    ),
)

Names = Annotated[list[str], Parameter(consume_multiple=True, negative="")]


@symbols.command
def add(
    names: Names,
    *,
    returns: Annotated[Return | None, ONE_FLAG] = None,
    file: Path | None = None,
    state_dir: Path | None = None,
    output: Output = TEXT,
) -> int:
    """Record these symbols too; `all:USDT` is whatever is quoted in USDT.

    Args:
        names: Symbols, separated by spaces or commas.
        returns: For a symbol that was away for long: heal fetches what was missed, gap declares
            it missing.
        file: The symbols file (K2_SYMBOLS_FILE).
        state_dir: Where `k2 up` kept everything (K2_STATE_DIR, default var).
        output: Text for people, or JSON.
    """
    path, text = _file(file, state_dir)
    changed = with_added(text, sorted(split_symbols(names)), how=returns)
    return _write(path, changed, output)


@symbols.command
def remove(
    names: Names,
    *,
    file: Path | None = None,
    state_dir: Path | None = None,
    output: Output = TEXT,
) -> int:
    """Record these symbols no more. Their tapes stay, and can be gone on with later.

    Args:
        names: Symbols, separated by spaces or commas.
        file: The symbols file (K2_SYMBOLS_FILE).
        state_dir: Where `k2 up` kept everything (K2_STATE_DIR, default var).
        output: Text for people, or JSON.
    """
    path, text = _file(file, state_dir)
    changed = with_removed(text, sorted(split_symbols(names)))
    return _write(path, changed, output)


@symbols.command(name="list")
def list_symbols(
    *,
    file: Path | None = None,
    kafka_bootstrap: str | None = None,
    state_dir: Path | None = None,
    output: Output = TEXT,
) -> int:
    """Show what is recorded, as Kafka has it, and what the file wants.

    Args:
        file: The symbols file (K2_SYMBOLS_FILE).
        kafka_bootstrap: Kafka's host:port (KAFKA_BOOTSTRAP).
        state_dir: Where `k2 up` kept everything (K2_STATE_DIR, default var).
        output: Text for people, or JSON.
    """
    from k2.ingestion.positions_look import find_room  # noqa: PLC0415 - `k2 --help` stays fast
    from k2.ingestion.symbols_file import wanted_symbols  # noqa: PLC0415

    settings = session({"kafka_bootstrap": kafka_bootstrap, "state_dir": state_dir})
    if file is not None:
        settings = settings.model_copy(update={"symbols_file": file})
    wanted = wanted_symbols(settings)
    room = find_room(settings)
    rows: list[dict[str, object]] = []
    for shard in range(room.partitions):
        record = room.record(shard)
        active = set(record.identity.symbols) if record.identity is not None else set()
        tapes = dict(record.position.symbols) if record.position is not None else {}
        rows += [
            {
                "symbol": name,
                "recorded": name in active,
                "wanted": name in wanted.names,
                "shard": shard,
                "next_id": tapes[name].next_id if name in tapes else None,
            }
            for name in sorted(active | tapes.keys())
        ]
    seen = {str(row["symbol"]) for row in rows}
    rows += [
        {"symbol": name, "recorded": False, "wanted": True, "shard": None, "next_id": None}
        for name in sorted(wanted.names - seen)
    ]
    if output.as_json:
        print_json(rows)
        return ExitCode.CLEAN
    columns = ["symbol", "recorded", "wanted", "shard", "next_id"]
    yes_no = {True: "yes", False: "no"}
    print_table(
        [name.replace("_", " ") for name in columns],
        [
            [yes_no[value] if isinstance(value, bool) else value for value in row.values()]
            for row in sorted(rows, key=lambda row: str(row["symbol"]))
        ],
    )
    if wanted.quotes:
        Console().print(f"and whatever is quoted in {', '.join(sorted(wanted.quotes))}")
    return ExitCode.CLEAN


def _file(given: Path | None, state_dir: Path | None) -> tuple[Path, str]:
    path = given or session({"state_dir": state_dir}).symbols_file
    if path is None:
        raise SettingsError(
            "no symbols file: start `k2 stream` with K2_SYMBOLS_FILE=FILE, and set it here too "
            "(or --file FILE)"
        )
    return path, path.read_text("utf-8") if path.exists() else ""


def _write(path: Path, text: str, output: Output) -> int:
    from k2.ingestion.symbols_file import write_file  # noqa: PLC0415 - `k2 --help` stays fast

    wanted = parse_lines(text)
    if not wanted.names and not wanted.quotes:
        raise SettingsError(f"{path}: at least one symbol has to stay")
    write_file(path, text)
    found = {"file": str(path), "names": sorted(wanted.names), "quotes": sorted(wanted.quotes)}
    names = " ".join([*sorted(wanted.names), *(f"all:{q}" for q in sorted(wanted.quotes))])
    print_either(found, f"{path}: {names}", output.as_json)
    return ExitCode.CLEAN
