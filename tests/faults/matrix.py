"""What a row of the matrix is: what is done, under which load, and what must come of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module

from faults.bench import Bench
from k2.simulator.listing import LISTINGS

_BUSY = [name for name, listing in LISTINGS.items() if listing.activity and name.isascii()]
SYMBOLS = (*_BUSY[:19], "\u8fd9\u662f\u6d4b\u8bd5\u5e01456")
"""The busiest first; the last one is not ASCII and its ids begin at 0."""

MODULES = (
    "rows_connections",
    "rows_stream",
    "rows_rest",
    "rows_kafka",
    "rows_instances",
    "rows_load",
)
"""Where the rows are, in the order of the document; each registers its own."""

FULL_RATE = 2000.0
"""Trades per second of the issue's figures, over 20 symbols."""


@dataclass(frozen=True)
class Row:
    """One fault."""

    name: str
    group: str
    how: str
    act: Callable[[Bench], None]
    rate: float = FULL_RATE
    symbols: int = 20
    shards: int = 1
    instances: int = 1
    settings: Mapping[str, str] = field(default_factory=dict)
    exchange_flags: tuple[str, ...] = ()
    exchange_config: Mapping[str, float] | None = None
    """Settings of the exchange that its command has no flags for."""
    declared: int = 0
    """How many ids must be declared: more is a source not asked, less a gap not told."""
    repaired: int = 0
    healed_max: int | None = None
    rest_calls_max: int | None = None
    pause_max_s: float | None = None
    moment_pause_p99_max_s: float | None = None
    heal_max_s: float | None = None
    quick: bool = False


_rows: dict[str, Row] = {}


def row(
    group: str,
    how: str,
    **more: object,
) -> Callable[[Callable[[Bench], None]], Callable[[Bench], None]]:
    """Make a row of a function; its name, with spaces, is the row's."""

    def take(act: Callable[[Bench], None]) -> Callable[[Bench], None]:
        name = act.__name__.replace("_", "-")
        _rows[name] = Row(name=name, group=group, how=how, act=act, **more)  # type: ignore[arg-type]
        return act

    return take


def all_rows() -> dict[str, Row]:
    """Return every row by name, in the order of the document."""
    for module in MODULES:
        import_module(f"faults.{module}")
    return dict(_rows)
