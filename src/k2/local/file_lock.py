"""One holder at a time, across processes: a path in, a lock that dies with its holder out."""

import fcntl
import os
from pathlib import Path
from typing import Self

from k2.errors import StopError


class FileLock:
    """An advisory lock on a file; the kernel releases it when the process ends, however."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @classmethod
    def try_acquire(cls, path: Path) -> Self | None:
        """Return the lock, or None while another process (or another lock here) holds it.

        Raises:
            StopError: If the file or its folder cannot be made.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Python's descriptors close on exec, so that a child does not keep the lock alive.
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as exc:
            raise StopError(
                f"{path} cannot be made ({exc.strerror}): choose another folder"
            ) from exc
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except BaseException:
            os.close(descriptor)
            raise
        return cls(descriptor)

    def write(self, text: str) -> None:
        """Say in the file who holds it, for whoever finds it taken."""
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, text.encode(), 0)

    def release(self) -> None:
        """Let the next one have it; the file stays."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
