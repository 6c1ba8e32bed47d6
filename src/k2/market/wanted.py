"""Which symbols an operator wants recorded: a list of names, or a file, one a line.

BTCUSDT            record it
all:USDT           record whatever is quoted in USDT, as the exchange lists it
-XRPUSDT           stop recording it; a line that is merely gone changes nothing
ETHUSDT heal       it returns after a long absence: fetch what was missed
BNBUSDT gap        it returns after a long absence: declare what was missed
# a comment
"""

from collections.abc import Iterable
from enum import Enum
from typing import NamedTuple

from k2.errors import StopError

ALL = "ALL:"

NAME_LENGTH_MAX = 64
_NEVER_IN = frozenset('/@?&=%:-# ,"[]')


class Return(Enum):
    """What to do about the ids missed while a symbol was away for long."""

    HEAL = "heal"
    GAP = "gap"


class Wanted(NamedTuple):
    """What an operator wants recorded."""

    names: frozenset[str] = frozenset()
    quotes: frozenset[str] = frozenset()
    """Every symbol quoted in these assets."""
    leaving: frozenset[str] = frozenset()
    returns: tuple[tuple[str, Return], ...] = ()


def parse_names(names: Iterable[str]) -> Wanted:
    """Return what a plain list of names wants (``BINANCE_SYMBOLS``)."""
    upper = [name.upper() for name in names]
    return Wanted(
        frozenset(name for name in upper if not name.startswith(ALL)),
        frozenset(name.removeprefix(ALL) for name in upper if name.startswith(ALL)),
    )


def could_be_listed(name: str) -> bool:
    """Say whether a symbol or an asset can be called so at all."""
    return name.isprintable() and 0 < len(name) <= NAME_LENGTH_MAX and not set(name) & _NEVER_IN


def parse_lines(text: str) -> Wanted:
    """Return what a symbols file wants.

    Raises:
        StopError: If a line cannot be understood; it is named.
    """
    names: list[str] = []
    leaving: set[str] = set()
    returns: dict[str, Return] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        name = words[0].upper()
        try:
            how = Return(words[1].lower()) if len(words) > 1 else None
        except ValueError:
            how = None
        if len(words) > 2 or (len(words) == 2 and how is None):
            raise StopError(f"line {number} of the symbols file: {line.strip()!r}: one name a line")
        if not could_be_listed(name.removeprefix("-").removeprefix(ALL)):
            # Asked about it, the exchange would refuse the whole question, and all others with it.
            raise StopError(f"line {number} of the symbols file: no symbol is called {words[0]!r}")
        if name.startswith("-"):
            leaving.add(name[1:])
        else:
            names.append(name)
            if how is not None:
                returns[name] = how
    wanted = parse_names(names)
    left = frozenset(leaving) - wanted.names
    return wanted._replace(leaving=left, returns=tuple(sorted(returns.items())))


def with_added(text: str, names: Iterable[str], *, how: Return | None) -> str:
    """Return the file's text with these names wanted."""
    names = [name.upper() for name in names]
    kept = _without(text, names)
    added = [f"{name} {how.value}" if how else name for name in names]
    return "\n".join([*kept, *added]) + "\n"


def with_removed(text: str, names: Iterable[str]) -> str:
    """Return the file's text with these names leaving."""
    names = [name.upper() for name in names]
    return "\n".join([*_without(text, names), *(f"-{name}" for name in names)]) + "\n"


def _without(text: str, names: list[str]) -> list[str]:
    def named(line: str) -> str:
        words = line.partition("#")[0].split()
        return words[0].upper().removeprefix("-") if words else ""

    return [line for line in text.splitlines() if named(line) not in names]
