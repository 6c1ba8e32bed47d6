"""How the commands behind ``make faults`` and ``make soak`` speak and end."""

import signal
import sys
from typing import NoReturn, TextIO

from cyclopts import App

INTERRUPTED = 130


def say(text: str, *, stream: TextIO | None = None) -> None:
    """Print at once: who reads it through a pipe waits for hours."""
    print(text, file=stream or sys.stdout, flush=True)


def run_to_the_end(app: App) -> NoReturn:
    """Run the command line; SIGTERM is a Ctrl-C, and that is exit 130."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        code = app(result_action="return_value")
    except KeyboardInterrupt:
        code = INTERRUPTED
    sys.exit(code)


def _interrupt(_number: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt
