"""How commands answer: text for people, JSON for programs."""

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec
from cyclopts import Parameter
from rich.console import Console
from rich.table import Table
from rich.text import Text


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


TEXT = Output()


def print_json(value: Any, *, indent: bool = True) -> None:
    """Print a value as JSON, on one line unless indented."""
    encoded = msgspec.json.encode(value, enc_hook=str)
    if indent:
        encoded = msgspec.json.format(encoded, indent=2)
    sys.stdout.write(encoded.decode() + "\n")
    sys.stdout.flush()


def print_either(value: Any, text: str, as_json: bool) -> None:
    """Print the value as JSON, or else the text."""
    if as_json:
        print_json(value)
    else:
        # A line stays a line in a pipe, where nobody knows a width.
        Console().print(text, markup=False, highlight=False, soft_wrap=True)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print rows under their columns; None is an empty cell."""
    width = shutil.get_terminal_size((160, 50)).columns
    # Text: in a plain string Rich takes [a-z] for a style of its own.
    table = Table()
    for column in columns:
        table.add_column(Text(column))
    for row in rows:
        table.add_row(*(Text("" if value is None else str(value)) for value in row))
    Console(width=width).print(table)
