"""``k2 symbols``: change what a running service records."""

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
from cyclopts import App, Parameter
from rich.console import Console

from k2.cli.output import TEXT, Output, print_either, print_json, print_table
from k2.cli.session import ONE_FLAG, session, split_symbols
from k2.errors import RetryError
from k2.ingestion.supervision import ExitCode
from k2.market.wanted import (
    ALL,
    Return,
    Wanted,
    could_be_listed,
    parse_lines,
    parse_names,
    with_added,
    with_removed,
)
from k2.settings import Settings, SettingsError

if TYPE_CHECKING:
    from k2.ingestion.positions_look import Room

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
    settings, path, text = _file(file, state_dir)
    asked = _names(names)
    unlisted = _unlisted(settings, parse_names(asked).names)
    if unlisted is None:
        _remark(
            f"{settings.rest_urls[0]} does not say whether it lists {' '.join(asked)}: "
            "`k2 symbols list` tells later"
        )
    elif unlisted:
        raise SettingsError(
            f"NAMES: the exchange does not list {' '.join(unlisted)}; {path} is as it was"
        )
    return _write(path, with_added(text, asked, how=returns), output)


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
    settings, path, text = _file(file, state_dir)
    asked, before = _names(names), parse_lines(text)
    # What a file does not name may be recorded all the same: a line that is gone changes nothing.
    strange = [name for name in asked if name not in _named(before) | before.leaving]
    if strange and not before.quotes:
        recorded = _recorded(settings)
        if recorded is None:
            _remark(f"Kafka does not say whether {' '.join(strange)} is recorded")
        elif absent := [name for name in strange if name not in recorded]:
            raise SettingsError(
                f"NAMES: {' '.join(absent)} is neither in {path} nor recorded; nothing was changed"
            )
    return _write(path, with_removed(text, asked), output)


@symbols.command(name="list")
def list_symbols(
    *,
    file: Path | None = None,
    kafka_bootstrap: str | None = None,
    state_dir: Path | None = None,
    output: Output = TEXT,
) -> int:
    """Show what is recorded, as Kafka has it, and what the file wants.

    Without Kafka it shows what the file wants, and exits with 1.

    Args:
        file: The symbols file (K2_SYMBOLS_FILE).
        kafka_bootstrap: Kafka's host:port (KAFKA_BOOTSTRAP).
        state_dir: Where `k2 up` kept everything (K2_STATE_DIR, default var).
        output: Text for people, or JSON.
    """
    from k2.ingestion.symbols_file import wanted_symbols  # noqa: PLC0415 - fast `--help`
    from k2.ingestion.symbols_list import symbol_lines  # noqa: PLC0415

    settings = session({"kafka_bootstrap": kafka_bootstrap, "state_dir": state_dir})
    if file is not None:
        settings = settings.model_copy(update={"symbols_file": file})
    wanted = wanted_symbols(settings)
    problem, room = _room(settings)
    lines = symbol_lines(wanted, room)
    waiting = [one.symbol for one in lines if one.wanted and one.recorded is False]
    for name in _unlisted(settings, waiting) or ():
        lines = [
            msgspec.structs.replace(one, note="the exchange does not list it")
            if one.symbol == name
            else one
            for one in lines
        ]
    if output.as_json:
        print_json(lines)
    else:
        yes_no = {True: "yes", False: "no", None: "?"}
        print_table(
            ["symbol", "recorded", "wanted", "shard", "next id", "note"],
            [
                (
                    *(one.symbol, yes_no[one.recorded], yes_no[one.wanted]),
                    *(one.shard, one.next_id, one.note),
                )
                for one in lines
            ],
        )
        if wanted.quotes:
            Console().print(f"and whatever is quoted in {', '.join(sorted(wanted.quotes))}")
    if problem is None:
        return ExitCode.CLEAN
    _remark(f"k2: what is recorded is unknown: {problem}")
    return ExitCode.FAILED


def _names(given: list[str]) -> list[str]:
    names = sorted(split_symbols(given))
    for name in names:
        if not could_be_listed(name.removeprefix(ALL)):
            raise SettingsError(f"NAMES {name!r}: expected a symbol such as BTCUSDT, or all:USDT")
    return names


def _named(wanted: Wanted) -> frozenset[str]:
    return wanted.names | {f"{ALL}{quote}" for quote in wanted.quotes}


def _unlisted(settings: Settings, names: Collection[str]) -> list[str] | None:
    """Return those the exchange does not list; None when it does not say."""
    from k2.ingestion.listing import unlisted  # noqa: PLC0415 - `k2 --help` stays fast

    return unlisted(settings, names)


def _room(settings: Settings) -> "tuple[str | None, Room | None]":
    """Return why Kafka does not say what is recorded, or the topics that do."""
    from k2.ingestion.positions_look import find_room  # noqa: PLC0415 - `k2 --help` stays fast

    try:
        return None, find_room(settings)
    except RetryError as exc:
        return str(exc), None


def _recorded(settings: Settings) -> set[str] | None:
    from k2.ingestion.symbols_list import symbol_lines  # noqa: PLC0415 - `k2 --help` stays fast

    _, room = _room(settings)
    if room is None:
        return None
    return {one.symbol for one in symbol_lines(Wanted(), room) if one.recorded}


def _remark(text: str) -> None:
    """Say something beside the answer, which may be read by a program."""
    Console(stderr=True).print(text, markup=False, highlight=False, soft_wrap=True)


def _file(given: Path | None, state_dir: Path | None) -> tuple[Settings, Path, str]:
    settings = session({"state_dir": state_dir})
    path = given or settings.symbols_file
    if path is None:
        raise SettingsError(
            f"nothing of `k2 up` is in {settings.state_dir.absolute()}: name the state directory "
            "with --state-dir, or the symbols file of a `k2 stream` with --file (K2_SYMBOLS_FILE)"
        )
    return settings, path, path.read_text("utf-8") if path.exists() else ""


def _write(path: Path, text: str, output: Output) -> int:
    from k2.ingestion.symbols_file import write_file  # noqa: PLC0415 - `k2 --help` stays fast

    wanted = parse_lines(text)
    if not wanted.names and not wanted.quotes:
        raise SettingsError(
            f"{path}: at least one symbol has to stay; add another first, "
            f"`k2 symbols add BTCUSDT --file {path}`"
        )
    write_file(path, text)
    found = {"file": str(path), "names": sorted(wanted.names), "quotes": sorted(wanted.quotes)}
    names = " ".join([*sorted(wanted.names), *(f"all:{q}" for q in sorted(wanted.quotes))])
    print_either(found, f"{path}: {names}", output.as_json)
    return ExitCode.CLEAN
