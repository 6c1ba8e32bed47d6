"""A command as a child process, as others start it."""

import subprocess
import sys
from collections.abc import Callable

Child = subprocess.Popen[str]
Start = Callable[..., Child]
"""Starts a command with these flags; the child is killed when the test ends."""


class Children:
    """The children of one test."""

    def __init__(self) -> None:
        self._started: list[Child] = []

    def start(self, module: str, *flags: str) -> Child:
        """Start a module, with pipes to it."""
        child = subprocess.Popen(
            [sys.executable, "-m", module, *flags],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._started.append(child)
        return child

    def end(self) -> None:
        """Kill what still runs."""
        for child in self._started:
            if child.poll() is None:
                child.kill()
            child.communicate()


def line_of(child: Child) -> str:
    """Return the next line a child prints."""
    assert child.stdout is not None
    return child.stdout.readline().strip()


def check_refused(child: Child, *, said: str) -> None:
    """Check that a child ends with code 2 and one line on stderr, with these words in it."""
    stdout, stderr = child.communicate(timeout=20)
    assert child.returncode == 2
    assert stdout == ""
    assert len(stderr.strip().splitlines()) == 1
    assert said in stderr
