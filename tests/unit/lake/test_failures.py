import zlib

import pytest
from pyiceberg.exceptions import (
    CommitFailedException,
    CommitStateUnknownException,
    ResolveError,
    RESTError,
    ValidationError,
)
from sqlalchemy.exc import OperationalError

from k2.errors import RejectError, RetryError, StopError
from k2.lake.failures import lake_failures


@pytest.mark.parametrize(
    "problem",
    [
        FileNotFoundError("a file"),
        CommitFailedException("409"),
        CommitStateUnknownException("504"),
        RESTError("503"),
        OperationalError("SELECT", {}, Exception("database is locked")),
    ],
    ids=lambda one: type(one).__name__,
)
def test_what_is_away_is_tried_again(problem: Exception) -> None:
    with (
        pytest.raises(RetryError, match=rf"^it cannot be read: {type(problem).__name__}"),
        lake_failures("it cannot be read"),
    ):
        raise problem


@pytest.mark.parametrize(
    "problem",
    [
        ValidationError("no metadata"),
        ResolveError("no such\n  field"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
        EOFError("read 1 byte"),
        KeyError("schema"),
        SystemError("Negative size"),
        zlib.error("Error -3"),
    ],
    ids=lambda one: type(one).__name__,
)
def test_what_is_damaged_stops_and_names_the_repair(problem: Exception) -> None:
    with (
        pytest.raises(StopError, match=r"^it cannot be read: .*restore.*--from-first`") as told,
        lake_failures("it cannot be read"),
    ):
        raise problem
    assert "\n" not in str(told.value)


def test_what_was_said_already_is_not_said_again() -> None:
    with pytest.raises(RejectError, match=r"^ours$"), lake_failures("it cannot be read"):
        raise RejectError("ours")
