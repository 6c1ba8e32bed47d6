"""The integration stack, and the table of what covers the contract at the end of the run."""

import pytest

from contract.listing import rows
from contract.summary import lines
from integration.conftest import room, stack

__all__ = ["room", "stack"]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table after the tests."""
    terminalreporter.section("operations contract")
    for line in lines(rows()):
        terminalreporter.write_line(line)
