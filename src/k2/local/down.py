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

# What makes a folder one of ours; nothing else is ever removed.
_OURS = frozenset({"stack.lock", "ports.json", "kafka", "registry", "logs", "pids", "k2.env"})


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
    found = {path.name for path in state_dir.iterdir()}
    if found and not found & _OURS:
        raise StopError(f"{state_dir} is not a state directory of k2: nothing was touched")
    lock = FileLock.try_acquire(state_dir / "stack.lock")
    if lock is None:
        raise StopError(f"k2 up runs on {state_dir}: end it with Ctrl-C first")
    try:
        for name in NAMES:
            pid = asyncio.run(end_leftover(name, state_dir=state_dir, deadline_s=DEADLINE_S))
            if pid is not None:
                console.print(f"ended {name} (process {pid})", highlight=False)
        if delete:
            shutil.rmtree(state_dir)
            console.print(f"removed {state_dir}", highlight=False)
    finally:
        lock.release()
    return ExitCode.CLEAN
