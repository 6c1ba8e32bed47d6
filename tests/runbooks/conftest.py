"""The integration stack and a room, with an operator's desk in it."""

import pytest

from integration.conftest import room, stack
from integration.harness import Room
from runbooks.desk import Desk

__all__ = ["desk", "room", "stack"]


@pytest.fixture
def desk(room: Room) -> Desk:
    """The operator of this room."""
    return Desk(room)
