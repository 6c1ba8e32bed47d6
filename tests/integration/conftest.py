"""One real stack for the whole run; a room of its own for each test."""

import os
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from integration.harness import Room
from k2.local.background import BackgroundStack
from k2.local.stack import Stack


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BackgroundStack]:
    """Kafka and registry, started once."""
    state_dir = tmp_path_factory.mktemp("shared-stack")
    with BackgroundStack(
        Stack(state_dir=state_dir, kafka_port=None, registry_port=None)
    ) as running:
        yield running


@pytest.fixture
def room(stack: BackgroundStack, tmp_path: Path) -> Iterator[Room]:
    """A prefix, a lake and an exchange of the test's own; everything in it is ended."""
    one = Room(stack, tmp_path, f"t{uuid4().hex[:8]}")
    yield one
    for process in one.processes:
        if process.running:
            process.kill()


@pytest.fixture(scope="session")
def recording() -> Path:
    """The recorded fills beside the checkout."""
    path = (
        Path(__file__).parents[2].parent
        / "shared"
        / "data"
        / "binance-spot-btcusdt-20240808.ndjson.gz"
    )
    if not path.exists():
        absent = "the recording is not beside this checkout (shared/data)"
        if os.environ.get("CI") == "true":
            pytest.fail(absent)  # there it is part of the machine: a missing part fails
        pytest.skip(absent)
    return path
