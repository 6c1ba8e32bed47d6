"""Dead letters read back from their files, oldest first."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from k2.errors import NOT_DECODABLE, RetryError
from k2.kafka.letter_files import letter_files


class Letter(msgspec.Struct, frozen=True):
    """One dead letter, as its line says (contract R145)."""

    timestamp: datetime
    error: str
    error_type: str
    topic: str
    symbol: str | None
    connection_id: str
    sequence: int
    schema_version: str
    original_message: dict[str, Any]


class LetterFilter(NamedTuple):
    """Which letters are meant; nothing given means all."""

    since: datetime | None = None
    error_types: frozenset[str] = frozenset()
    symbols: frozenset[str] = frozenset()

    def wants(self, letter: Letter) -> bool:
        """Say whether a letter is meant."""
        if self.since is not None and letter.timestamp < self.since:
            return False
        if self.error_types and letter.error_type not in self.error_types:
            return False
        return not self.symbols or letter.symbol in self.symbols


ALL_LETTERS = LetterFilter()

_decode = msgspec.json.Decoder(Letter).decode


class LetterReader:
    """Reads the letters of one directory."""

    def __init__(self, directory: Path) -> None:
        """Name the directory; one that is not there has no letters."""
        self.unreadable = 0
        """Lines that are no letters: of a process that was killed, or of another program."""
        self._directory = directory

    def read(self, wanted: LetterFilter = ALL_LETTERS) -> Iterator[Letter]:
        """Yield the letters that are meant, file by file.

        Raises:
            RetryError: If a file cannot be read.
        """
        try:
            for one in letter_files(self._directory):
                if wanted.since is None or one.day >= f"{wanted.since.astimezone(UTC):%Y%m%d}":
                    yield from self._of_file(one.path, wanted)
        except OSError as exc:
            raise RetryError(f"dead letters cannot be read: {exc}") from exc

    def _of_file(self, path: Path, wanted: LetterFilter) -> Iterator[Letter]:
        try:
            file = path.open("rb")
        except FileNotFoundError:
            return  # it made room for newer ones meanwhile
        with file:
            for line in file:
                if not line.strip():
                    continue
                try:
                    letter = _decode(line)
                except NOT_DECODABLE:
                    self.unreadable += 1
                    continue
                if letter.timestamp.tzinfo is None:
                    self.unreadable += 1
                elif wanted.wants(letter):
                    yield letter
