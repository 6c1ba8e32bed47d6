"""Settings as a command shows them: a table for people, whole lines or JSON for programs."""

import shlex
import sys

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from k2.settings import Settings, setting_rows


def print_settings(settings: Settings, *, as_json: bool) -> None:
    """Print every setting with its variable; of a secret only that there is one."""
    rows = setting_rows(settings)
    if as_json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(rows)).decode() + "\n")
    elif sys.stdout.isatty():
        table = Table("variable", "value", "meaning")
        for row in rows:
            table.add_row(*map(Text, (row.variable, row.value, row.meaning)))  # no styles in them
        Console().print(table)
    else:
        # For a program: whole values, as a shell or an environment file takes them.
        sys.stdout.writelines(f"{row.variable}={shlex.quote(row.value)}\n" for row in rows)
