"""``make contract``: print what covers each row of the operations contract; 1 if anything lacks."""

import sys

from contract.listing import exists, rows
from contract.summary import lines, uncovered


def main() -> int:
    """Print the table; return the exit code."""
    found = rows()
    for line in lines(found):
        print(line)  # noqa: T201 - a command's output
    absent = [test for row in found for test in row.tests if not exists(test)]
    return int(bool(absent or uncovered(found)))


if __name__ == "__main__":
    sys.exit(main())
