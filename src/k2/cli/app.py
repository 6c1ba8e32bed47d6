"""``k2``: every command under one name."""

import sys

from cyclopts import App, CycloptsError

from k2 import __version__
from k2.cli.backfill import backfill
from k2.cli.config import config
from k2.cli.dlq import dlq
from k2.cli.doctor import doctor
from k2.cli.gaps import gaps
from k2.cli.lake import query, verify
from k2.cli.local import down, up
from k2.cli.positions import positions
from k2.cli.schema import schema
from k2.cli.symbols import symbols
from k2.cli.top import top
from k2.cli.topic import tail
from k2.errors import K2Error
from k2.ingestion.supervision import ExitCode
from k2.settings import SettingsError

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

app.command(
    "k2.cli.healthcheck:main",  # only for the overview: it is run without any of this
    name="healthcheck",
    help="Ask a running service how it is: one line, exit 0 or 1.",
)

for command in (up, down, top, verify, query, tail, gaps, backfill):
    app.command(command, help_epilogue="")
app.command(doctor, help_epilogue="")
app.command(schema)
app.command(config)
app.command(positions)
app.command(symbols)
app.command(dlq)


def main() -> None:
    """Run one command; its exit code is the process's."""
    try:
        code = app(
            sys.argv[1:], exit_on_error=False, print_error=False, result_action="return_value"
        )
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
