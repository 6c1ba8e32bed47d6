"""What the lake's libraries raise, in the house's terms: away is waited for, damage is not."""

import zlib
from collections.abc import Iterator
from contextlib import contextmanager

from pyiceberg.exceptions import (
    CommitFailedException,
    NoSuchTableError,
    ResolveError,
    RESTError,
    ValidationError,
)
from sqlalchemy.exc import DatabaseError, SQLAlchemyError

from k2.errors import RetryError, StopError

AWAY = (OSError, SQLAlchemyError, RESTError, CommitFailedException)
"""A catalog or storage that does not answer, or not now; an unknown outcome is a ``RESTError``."""

# Avro and JSON readers that meet bytes of anything else raise any of these.
_DAMAGED = (
    ValidationError,
    ResolveError,
    ValueError,
    EOFError,
    LookupError,
    TypeError,
    OverflowError,
    SystemError,
    zlib.error,
)
"""A file that is there and is not what it should be."""

_DAMAGED_AT_A_COMMIT = (ValidationError, ResolveError, EOFError, zlib.error)
"""The same around code of ours: what else it raises is a mistake of ours, and shows as one."""


@contextmanager
def lake_failures(what: str) -> Iterator[None]:
    """Say of a failure inside what the caller was about, such as "the lake's files cannot be read".

    Raises:
        RetryError: If catalog or storage are away, a file is absent, or the table changed.
        StopError: If a file is damaged.
    """
    try:
        yield
    except AWAY as exc:
        if type(exc) is DatabaseError:  # "file is not a database", not one that is locked or away
            raise _damaged(what, exc) from exc
        raise RetryError(f"{what}: {_words(exc)}") from exc
    except _DAMAGED as exc:
        raise _damaged(what, exc) from exc


@contextmanager
def damage_stops(table: str) -> Iterator[None]:
    """Let a table's writer see what is away inside, and nothing else of the libraries.

    Raises:
        StopError: If the table was dropped, or a file of it is damaged.
    """
    try:
        yield
    except NoSuchTableError as exc:
        raise StopError(
            f"table {table} was dropped under its writer: another program did. Restore the lake, "
            "or start the archive again with another K2_LAKE_DIR: it takes what Kafka has"
        ) from exc
    except _DAMAGED_AT_A_COMMIT as exc:
        raise _damaged(f"table {table} cannot be committed to", exc) from exc


def _damaged(what: str, exc: BaseException) -> StopError:
    return StopError(
        f"{what}: {_words(exc)}. A file of the lake is damaged, or another program changed the "
        "table: restore it from a backup, or name another lake (K2_LAKE_DIR); `k2 archive "
        "--from-first` into that one has what Kafka still has"
    )


def _words(exc: BaseException) -> str:
    return f"{type(exc).__name__}: {' '.join(str(exc).split())[:500]}"
