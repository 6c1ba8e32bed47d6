"""The command line: parse, build, run, exit code. One module per subject."""

from k2.cli.app import main

__all__ = ["main"]
