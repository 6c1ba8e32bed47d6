"""What no unit test depends on: the settings of whoever runs it."""

import os

import pytest

from k2.settings import OUR_PREFIXES


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take every variable that k2 reads out of the environment; a test sets its own."""
    for name in list(os.environ):
        if name.startswith((*OUR_PREFIXES, "KAFKA_", "SCHEMA_REGISTRY_")):
            monkeypatch.delenv(name)
