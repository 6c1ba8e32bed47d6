"""What is printed must not depend on who runs the tests: side by side they are told 80 columns."""

import os
from collections.abc import Iterator

import pytest
import structlog

for _name in ("COLUMNS", "LINES"):
    os.environ.pop(_name, None)


@pytest.fixture(autouse=True)
def _logs_as_they_were() -> Iterator[None]:
    """What one test sets up or drops, another captures: they share a process in any order."""
    yield
    structlog.reset_defaults()
