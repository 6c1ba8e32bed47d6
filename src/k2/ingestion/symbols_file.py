"""``K2_SYMBOLS_FILE``: what to record, shared by all instances, followed while they run."""

import os
from pathlib import Path

from k2.errors import StopError
from k2.market.wanted import Wanted, parse_lines, parse_names
from k2.settings import Settings


def wanted_symbols(settings: Settings) -> Wanted:
    """Return what is to be recorded: the file wins over ``BINANCE_SYMBOLS``.

    Raises:
        StopError: If the file is not there or cannot be understood.
    """
    if settings.symbols_file is None:
        return parse_names(settings.symbols)
    return read_wanted(settings.symbols_file)


def read_wanted(path: Path) -> Wanted:
    """Return what the file wants.

    Raises:
        StopError: If it is not there or cannot be understood.
    """
    try:
        text = path.read_text("utf-8")
    except OSError as exc:
        raise StopError(
            f"K2_SYMBOLS_FILE={path} cannot be read ({exc.strerror}): make it with "
            "`k2 symbols add BTCUSDT`"
        ) from exc
    except UnicodeDecodeError as exc:
        raise StopError(f"K2_SYMBOLS_FILE={path} is not a text in UTF-8: {exc}") from exc
    return parse_lines(text)


def write_file(path: Path, text: str) -> None:
    """Replace the file in one step: a reader sees the old text or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.{os.getpid()}")
    new.write_text(text, "utf-8")
    new.replace(path)
