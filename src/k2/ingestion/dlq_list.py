"""What lies in the directory of dead letters, counted."""

from collections import Counter, deque
from pathlib import Path

import msgspec

from k2.kafka.letter_reading import Letter, LetterFilter, LetterReader


class LetterCount(msgspec.Struct, frozen=True):
    """Letters of one day, type and symbol."""

    day: str
    error_type: str
    symbol: str | None
    letters: int
    newest: str


class LetterList(msgspec.Struct, frozen=True):
    """What a directory holds."""

    directory: str
    letters: int
    unreadable: int
    """Lines that are no letters."""
    counts: list[LetterCount]
    """By day, type and symbol."""
    newest: Letter | None


def list_letters(directory: Path, wanted: LetterFilter) -> LetterList:
    """Count the letters that are meant.

    Raises:
        RetryError: If a file cannot be read.
    """
    reader = LetterReader(directory)
    counts: Counter[tuple[str, str, str | None]] = Counter()
    newest_at: dict[tuple[str, str, str | None], str] = {}
    newest: Letter | None = None
    for letter in reader.read(wanted):
        key = (f"{letter.timestamp:%Y-%m-%d}", letter.error_type, letter.symbol)
        counts[key] += 1
        newest_at[key] = max(newest_at.get(key, ""), letter.timestamp.isoformat())
        if newest is None or letter.timestamp >= newest.timestamp:
            newest = letter
    rows = [
        LetterCount(*key, letters=counts[key], newest=newest_at[key])
        for key in sorted(counts, key=lambda one: (one[0], one[1], one[2] or ""))
    ]
    return LetterList(str(directory), counts.total(), reader.unreadable, rows, newest)


def newest_letters(directory: Path, wanted: LetterFilter, *, limit: int) -> list[Letter]:
    """Return the newest letters that are meant, oldest of them first.

    Raises:
        RetryError: If a file cannot be read.
    """
    return list(deque(LetterReader(directory).read(wanted), maxlen=limit))
