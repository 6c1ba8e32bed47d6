"""The shell that asks the operating system for room and limits."""

import os
import resource
from pathlib import Path

from k2.doctor.finding import Unseen
from k2.doctor.machine_judgement import Folder


def look_at_folder(path: Path) -> Folder | Unseen:
    """Ask the file system the folder is on; before it is made, the one it would be on."""
    there = path.absolute()
    try:
        while not there.exists():
            there = there.parent
        if not there.is_dir():
            return Unseen(f"{there} is a file, not a folder")
        free = os.statvfs(there)
    except OSError as exc:
        return Unseen(f"{there}: {exc.strerror}")
    read_only = bool(free.f_flag & os.ST_RDONLY)
    return Folder(
        path=str(path),
        free_bytes=free.f_bavail * free.f_frsize,
        total_bytes=free.f_blocks * free.f_frsize,
        writable=not read_only and os.access(there, os.W_OK | os.X_OK),
    )


def open_files_limit() -> int:
    """Return how many files this process may open."""
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return 2**31 if soft == resource.RLIM_INFINITY else soft
