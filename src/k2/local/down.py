"""``k2 down``: end what a killed ``k2 up`` left running; with ``--delete`` remove its data."""

import asyncio
import shutil
from pathlib import Path

from rich.console import Console

from k2.errors import StopError
from k2.ingestion.supervision import ExitCode
from k2.local.file_lock import FileLock
from k2.local.processes import end_leftover

NAMES = ("stream", "archive", "exchange", "registry", "kafka")
DEADLINE_S = 7.0

MARKER = "stack.lock"

# Everything k2 up ever makes there; nothing else is removed.
_OURS = (
    *("kafka", "kafka.properties", "registry", "logs", "pids", "ports.json", "k2.env"),
    *("lake*", "exchange-*", MARKER),
)


def require_ours(state_dir: Path) -> None:
    """Refuse a folder that holds something and was not made by ``k2 up``.

    Raises:
        StopError: Naming the way out.
    """
    if state_dir.exists() and not state_dir.is_dir():
        raise StopError(f"{state_dir} is not a folder; choose another with --state-dir")
    if state_dir.is_dir() and any(state_dir.iterdir()) and not (state_dir / MARKER).is_file():
        raise StopError(
            f"{state_dir} holds files that are not k2's: nothing was touched. Choose an empty or "
            "new folder with --state-dir"
        )


def run_down(state_dir: Path, *, delete: bool) -> ExitCode:
    """End leftovers, then remove the state directory if asked to.

    Raises:
        StopError: If ``k2 up`` still runs there, or the folder is not one of ours.
    """
    console = Console()
    state_dir = state_dir.absolute()
    if not state_dir.is_dir():
        console.print(f"nothing at {state_dir}", highlight=False)
        return ExitCode.CLEAN
    require_ours(state_dir)
    lock = FileLock.try_acquire(state_dir / MARKER)
    if lock is None:
        raise StopError(f"k2 up runs on {state_dir}: end it with Ctrl-C first")
    try:
        for name in NAMES:
            pid = asyncio.run(end_leftover(name, state_dir=state_dir, deadline_s=DEADLINE_S))
            if pid is not None:
                console.print(f"ended {name} (process {pid})", highlight=False)
        if delete:
            left = _delete(state_dir)
            console.print(f"removed k2's data in {state_dir}", highlight=False)
            if left:
                console.print(f"left alone: {', '.join(left)}", highlight=False)
    finally:
        lock.release()
    return ExitCode.CLEAN


def _delete(state_dir: Path) -> list[str]:
    """Remove what is ours, and the folder if that was all; return what is left."""
    for pattern in _OURS:
        for path in state_dir.glob(pattern):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
    left = sorted(path.name for path in state_dir.iterdir())
    if not left:
        state_dir.rmdir()
    return left
