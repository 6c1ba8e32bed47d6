"""``k2 down``: end what a killed ``k2 up`` left running; with ``--delete`` remove its data."""

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from k2.errors import StopError
from k2.ingestion.supervision import ExitCode
from k2.local.file_lock import FileLock
from k2.local.processes import end_leftover

NAMES = ("prometheus", "stream", "archive", "exchange", "registry", "kafka")
DEADLINE_S = 7.0

MARKER = "stack.lock"

# What `k2 stream` and `k2 symbols` may have made there before any `k2 up` did.
_OF_SERVICES = (
    *("connects.json", "connects.json.lock", "connects.json.new", "spill"),
    *("symbols-lake*.txt", ".symbols-lake*.txt.*"),
)

# As ``local/venue.py`` names them: a folder that is only called much the same may be anybody's.
_VENUES = ("", "-simulated", "-testnet", "-demo", "-binance.us", "-recorded-*")
_LAKES = tuple(f"lake{venue}{fills}" for venue in _VENUES for fills in ("", "-fills"))

# Everything k2 ever makes there; nothing else is removed.
_OURS = (
    *("kafka", "kafka.properties", "registry", "logs", "pids", "ports.json", "k2.env"),
    *("prometheus", "dlq", "ports.tmp", "k2.tmp", "exchange-simulated", "exchange-recorded-*"),
    *_LAKES,
    *_OF_SERVICES,
)


def require_ours(state_dir: Path) -> None:
    """Refuse a folder that holds something and was not made by ``k2 up``.

    Raises:
        StopError: Naming the way out.
    """
    if state_dir.exists() and not state_dir.is_dir():
        raise StopError(f"{state_dir} is not a folder; choose another with --state-dir")
    if not state_dir.is_dir() or (state_dir / MARKER).is_file():
        return
    strange = sorted({*state_dir.iterdir()} - {*_matching(state_dir, _OF_SERVICES)})
    if strange:
        raise StopError(
            f"{state_dir} holds files that are not k2's ({strange[0].name}): nothing was touched. "
            "Choose an empty or new folder with --state-dir"
        )


def run_down(state_dir: Path, *, delete: bool, confirm: Callable[[str], bool]) -> ExitCode:
    """End leftovers, then remove k2's data if asked to.

    Args:
        state_dir: Where ``k2 up`` kept everything.
        delete: Remove the data too.
        confirm: Given what would be removed, says whether it may be.

    Raises:
        StopError: If ``k2 up`` still runs there, or the folder is not one of ours.
    """
    console = Console(soft_wrap=True, highlight=False, markup=False)
    state_dir = state_dir.absolute()
    if not state_dir.is_dir():
        console.print(f"nothing at {state_dir}")
        return ExitCode.CLEAN
    require_ours(state_dir)
    lock = FileLock.try_acquire(state_dir / MARKER)
    if lock is None:
        raise StopError(f"k2 up runs on {state_dir}: end it with Ctrl-C first")
    try:
        ended = 0
        for name in NAMES:
            pid = asyncio.run(end_leftover(name, state_dir=state_dir, deadline_s=DEADLINE_S))
            if pid is not None:
                ended += 1
                console.print(f"ended {name} (process {pid})")
        if delete:
            return _ask_and_delete(state_dir, confirm, console)
        if not ended:
            console.print(f"nothing of k2 runs on {state_dir}; its data stays")
    finally:
        lock.release()
    return ExitCode.CLEAN


def _ask_and_delete(state_dir: Path, confirm: Callable[[str], bool], console: Console) -> ExitCode:
    ours = sorted(_matching(state_dir, _OURS))
    names = ", ".join(
        f"the LAKE {path.name}" if path.name.startswith("lake") else path.name for path in ours
    )
    if ours and not confirm(f"remove from {state_dir}: {names}"):
        console.print("nothing was removed")
        return ExitCode.FAILED
    for path in ours:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    console.print(f"removed from {state_dir}: {names or 'nothing, there was no data'}")
    left = sorted(path.name for path in state_dir.iterdir() if path.name != MARKER)
    if left:
        # The marker stays with them: the folder is still one that `k2 up` may use.
        console.print(f"left alone, they are not k2's: {', '.join(left)}")
    else:
        (state_dir / MARKER).unlink()
        try:
            state_dir.rmdir()
        except OSError as exc:  # a link, or a disk of its own
            console.print(f"{state_dir} itself stays, empty: {exc.strerror}")
    return ExitCode.CLEAN


def _matching(state_dir: Path, patterns: tuple[str, ...]) -> set[Path]:
    return {path for pattern in patterns for path in state_dir.glob(pattern)}
