"""Dead letters on disk: one file a day in numbered parts, bounded, synced as the operator chose.

``binance-YYYYMMDD.jsonl`` (UTC) is the first part of a day, ``binance-YYYYMMDD.N.jsonl`` the ones
after it. Several processes append to the same files: a lock is held while one does, and nothing is
ever renamed, so that no process writes into what another has put away.
"""

import fcntl
import os
import re
from collections.abc import Sequence
from datetime import date
from enum import Enum
from pathlib import Path
from typing import BinaryIO, NamedTuple

FILE_BYTES = 64 << 20
DIRECTORY_BYTES = 1 << 30

_NAME = re.compile(r"binance-(\d{8})(?:\.(\d+))?\.jsonl", re.ASCII)


class Fsync(Enum):
    """When letters are forced out of the operating system's cache onto the disk."""

    EACH = "each"
    """Before they count as written; letters that wait together are synced together."""
    INTERVAL = "interval"
    """Once a second while there are new ones."""
    NEVER = "never"


class LetterFile(NamedTuple):
    """One file of letters. Files sort in the order in which they were begun."""

    day: str
    """``YYYYMMDD``."""
    part: int
    path: Path


def letter_files(directory: Path) -> list[LetterFile]:
    """Return the files of letters in a directory, oldest first; none if it is not there.

    Raises:
        OSError: If it cannot be read.
    """
    try:
        paths = list(directory.iterdir())
    except FileNotFoundError:
        return []
    return sorted(
        LetterFile(match[1], int(match[2] or 0), path)
        for path in paths
        if (match := _NAME.fullmatch(path.name))
    )


class LetterFiles:
    """Appends to the files of one directory. Blocking, for one thread."""

    def __init__(
        self,
        directory: Path,
        *,
        file_bytes: int = FILE_BYTES,
        directory_bytes: int = DIRECTORY_BYTES,
        fsync: Fsync = Fsync.INTERVAL,
    ) -> None:
        """Name the place and its bounds; the directory is made with the first letter."""
        self.directory = directory
        self.removed: list[str] = []
        """Files that had to go for newer ones, since somebody last looked."""
        self._file_bytes = file_bytes
        self._directory_bytes = directory_bytes
        self._fsync = fsync
        self._unsynced: Path | None = None

    def append(self, lines: Sequence[bytes], *, day: date) -> None:
        """Append lines, all or none, to the day's last part, or to a new one if that is full.

        Raises:
            OSError: If they could not be written; nothing of them is in the file then.
        """
        data = b"".join(line + b"\n" for line in lines)
        self.directory.mkdir(parents=True, exist_ok=True)
        files = letter_files(self.directory)
        self._make_room(files, len(data))
        mine = [one for one in files if one.day == f"{day:%Y%m%d}"]
        part = mine[-1].part if mine else 0
        while not self._append_to(_path(self.directory, day, part), data):
            part += 1

    def sync(self) -> None:
        """Force out what was appended, unless the policy is to leave that to the system.

        Raises:
            OSError: If it cannot be.
        """
        path, self._unsynced = self._unsynced, None
        if path is not None:
            with path.open("rb") as file:
                os.fsync(file.fileno())

    @property
    def unsynced(self) -> bool:
        """Whether ``sync`` has something to do."""
        return self._unsynced is not None

    def _append_to(self, path: Path, data: bytes) -> bool:
        """Append to one part; say no if it has no room, or was removed meanwhile."""
        if self._unsynced not in (None, path):
            self.sync()
        with path.open("ab+", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # goes with the file handle
            about = os.fstat(file.fileno())
            if about.st_nlink == 0:
                return self._append_to(path, data)
            if about.st_size and about.st_size + len(data) > self._file_bytes:
                return False
            # What a process that was killed, or met a full disk, left behind ends here.
            torn = about.st_size > 0 and _last_byte(file) != b"\n"
            _write_whole(file, b"\n" + data if torn else data, before_bytes=about.st_size)
            if self._fsync is Fsync.EACH:
                os.fsync(file.fileno())
            elif self._fsync is Fsync.INTERVAL:
                self._unsynced = path
        return True

    def _make_room(self, files: Sequence[LetterFile], more_bytes: int) -> None:
        """Remove the oldest files, never the newest, until ``more_bytes`` fit below the bound."""
        sizes = [_size(one.path) for one in files]
        total = sum(sizes) + more_bytes
        for one, size in zip(files[:-1], sizes[:-1], strict=True):
            if total <= self._directory_bytes:
                return
            one.path.unlink(missing_ok=True)
            self.removed.append(one.path.name)
            total -= size


def _path(directory: Path, day: date, part: int) -> Path:
    return directory / (f"binance-{day:%Y%m%d}" + (f".{part}" if part else "") + ".jsonl")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _last_byte(file: BinaryIO) -> bytes:
    file.seek(-1, os.SEEK_END)
    return file.read(1)


def _write_whole(file: BinaryIO, data: bytes, *, before_bytes: int) -> None:
    """Write all of it, or leave the file as it was.

    Raises:
        OSError: If it does not fit.
    """
    rest = memoryview(data)
    try:
        while rest:
            rest = rest[file.write(rest) :]
    except OSError:
        if len(rest) < len(data):
            file.truncate(before_bytes)
        raise
