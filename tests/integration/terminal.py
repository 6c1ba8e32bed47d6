"""A terminal that something runs in, and that is closed."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from integration.harness import Process

# What ignores SIGHUP (``nohup`` around the tests) would hand that down.
_TAKE_TERMINAL = (
    "import fcntl, os, signal, sys, termios; signal.signal(signal.SIGHUP, signal.SIG_DFL); "
    "fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
)


@contextmanager
def in_a_terminal(
    argv: list[str], *, environ: Mapping[str, str], output: Path
) -> Iterator[Process]:
    """Run something that a terminal controls; the terminal is closed with the context."""
    master, slave = os.openpty()
    process = Process(argv, dict(environ), output)
    with output.open("ab") as said:
        process.popen = subprocess.Popen(
            [sys.executable, "-c", _TAKE_TERMINAL, *argv],
            env=process.environ,
            stdin=slave,
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    os.close(slave)
    try:
        yield process
    finally:
        os.close(master)
