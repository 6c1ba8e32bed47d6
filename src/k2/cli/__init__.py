"""The command line: parse, build, run, exit code. One module per subject."""

import sys


def main() -> None:
    """Run one command; its exit code is the process's."""
    if sys.argv[1:2] == ["healthcheck"]:
        from k2.cli import healthcheck  # noqa: PLC0415 - asked every few seconds: 0.05 s, not 0.6 s

        sys.exit(healthcheck.main(sys.argv[2:]))
    from k2.cli.app import main as run  # noqa: PLC0415

    run()


__all__ = ["main"]
