"""Child processes that never outlive their parent unnoticed: a command in, a running child out.

Three nets, because each has a hole: the kernel signals the child when its parent dies (Linux);
a pid file with the process's identity lets the next start find what was left running; and the
identity keeps us from ever signalling an unrelated process that was given the same pid.
"""

import asyncio
import ctypes
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil  # type: ignore[import-untyped]  # ships no type information

from k2.errors import StopError

_LOG_SIZE_MAX_BYTES = 20_000_000
_KILL_DEADLINE_S = 5.0
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


@dataclass(frozen=True)
class Command:
    """What to run.

    Attributes:
        name: Short and unique within a state directory: names the log and the pid file.
        argv: Program and arguments.
        environ: The whole environment, or None for our own.
        cwd: Working directory, or None for our own.
        parent_death_signal: What the kernel sends when the thread that spawned the child ends.
    """

    name: str
    argv: tuple[str, ...]
    environ: Mapping[str, str] | None = None
    cwd: Path | None = None
    parent_death_signal: signal.Signals = signal.SIGTERM


class Child:
    """A child process that runs or has run, its log and its pid file."""

    def __init__(
        self, name: str, *, process: asyncio.subprocess.Process, log_path: Path, pid_path: Path
    ) -> None:
        self.name = name
        self.log_path = log_path
        self._process = process
        self._pid_path = pid_path

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    @property
    def return_code(self) -> int | None:
        """Exit code, negative for a signal, or None while it runs."""
        return self._process.returncode

    async def wait(self) -> int:
        """Return the exit code once the process has ended."""
        code = await self._process.wait()
        self._pid_path.unlink(missing_ok=True)
        return code

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, unless the process has ended."""
        with suppress(ProcessLookupError):
            self._process.send_signal(number)

    async def terminate(self, *, deadline_s: float) -> int:
        """Ask the process to end, and kill it when it has not after ``deadline_s``.

        Returns:
            The exit code; ``-9`` says that it had to be killed.
        """
        self.signal(signal.SIGTERM)
        # A stopped process would sleep through the request.
        self.signal(signal.SIGCONT)
        try:
            return await asyncio.wait_for(asyncio.shield(self.wait()), deadline_s)
        except TimeoutError:
            self.signal(signal.SIGKILL)
            return await self.wait()

    def log_tail(self, *, lines: int = 5) -> str:
        """Return the last lines of its log, for a message that must explain its end."""
        with suppress(OSError), self.log_path.open("rb") as log:
            size = log.seek(0, os.SEEK_END)
            log.seek(max(0, size - 8192))
            return "\n".join(log.read().decode(errors="replace").splitlines()[-lines:])
        return ""


async def spawn(command: Command, *, state_dir: Path) -> Child:
    """Start a child with its own session, so that Ctrl-C reaches it through us only.

    Call it from a thread that lives as long as the child should: on Linux the kernel signals
    the child when that thread ends.

    Raises:
        StopError: If the program cannot be started.
    """
    log_path = _log_path(state_dir, command.name)
    pid_path = _pid_path(state_dir, command.name)
    for path in (log_path, pid_path):
        path.parent.mkdir(parents=True, exist_ok=True)
    if log_path.exists() and log_path.stat().st_size > _LOG_SIZE_MAX_BYTES:
        log_path.replace(log_path.with_suffix(".log.1"))
    with log_path.open("ab") as log:
        try:
            process = await asyncio.create_subprocess_exec(
                *command.argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=asyncio.subprocess.STDOUT,
                env=dict(command.environ) if command.environ is not None else None,
                cwd=command.cwd,
                start_new_session=True,
                # Only two system calls between fork and exec: safe beside other threads.
                preexec_fn=_die_with_parent(command.parent_death_signal),
            )
        except OSError as error:
            raise StopError(f"cannot start {command.name} ({command.argv[0]}): {error}") from error
    record = {
        "pid": process.pid,
        "identity": process_identity(process.pid),
        "folder": _folder_identity(state_dir),
        "command": list(command.argv),
    }
    temporary = pid_path.with_suffix(".tmp")
    temporary.write_text(json.dumps(record), encoding="utf-8")
    temporary.replace(pid_path)
    return Child(command.name, process=process, log_path=log_path, pid_path=pid_path)


async def spawn_ready(
    command: Command, *, state_dir: Path, wait_ready: Callable[[Child], Awaitable[None]]
) -> Child:
    """Start a child and return it once it is ready; one that does not become so is killed.

    Raises:
        Exception: Whatever ``wait_ready`` raised; the child does not run then.
    """
    child = await spawn(command, state_dir=state_dir)
    try:
        await wait_ready(child)
    except BaseException:
        child.signal(signal.SIGKILL)
        await child.wait()
        raise
    return child


def find_leftover(name: str, *, state_dir: Path) -> psutil.Process | None:
    """Return the process that an earlier parent left running under this name, or None.

    A process that has the recorded pid but another identity is somebody else's, never returned.
    Nor is one of the folder that this one is a copy of: it may well be at work there.
    """
    try:
        record = json.loads(_pid_path(state_dir, name).read_text(encoding="utf-8"))
        pid, identity = int(record["pid"]), str(record["identity"])
        here = _folder_identity(state_dir)
        if record.get("folder", here) != here:  # an older version does not say
            return None
    except (OSError, ValueError, TypeError, KeyError):
        return None
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
    except psutil.Error:
        return None
    return process if process_identity(pid) == identity else None


async def end_leftover(name: str, *, state_dir: Path, deadline_s: float) -> int | None:
    """End what an earlier parent left running under this name, and forget its pid file.

    Returns:
        The pid that was ended, or None if nothing was running.

    Raises:
        StopError: If it survives, or belongs to another user.
    """
    process = find_leftover(name, state_dir=state_dir)
    if process is not None:
        try:
            process.terminate()
            process.resume()
            if not await asyncio.to_thread(_has_ended, process, deadline_s):
                process.kill()
                if not await asyncio.to_thread(_has_ended, process, _KILL_DEADLINE_S):
                    raise StopError(f"process {process.pid} ({name}) does not end; kill -9 it")
        except psutil.NoSuchProcess:
            pass
        except psutil.AccessDenied as error:
            raise StopError(
                f"process {process.pid} ({name}) was left running by another user; end it first"
            ) from error
    _pid_path(state_dir, name).unlink(missing_ok=True)
    return process.pid if process is not None else None


def process_identity(pid: int) -> str | None:
    """Return what tells a process from a later one with the same pid, or None if it is gone.

    On Linux the boot and the start in clock ticks since it: the wall-clock start time that
    psutil computes moves when the clock is set.
    """
    if sys.platform == "linux":
        try:
            stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
            boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        except OSError:
            return None
        # The name in parentheses may hold spaces; field 22 of the line is the 20th after it.
        return f"{boot}:{stat.rpartition(')')[2].split()[19]}"
    try:
        return f"{psutil.Process(pid).create_time():.2f}"
    except psutil.Error:
        return None


def _folder_identity(folder: Path) -> str:
    """Return what tells a folder from a copy of it, and stays when it is renamed."""
    found = folder.stat()
    return f"{found.st_dev}:{found.st_ino}"


def _die_with_parent(number: signal.Signals) -> Callable[[], None] | None:
    libc, parent = _LIBC, os.getpid()
    if libc is None:
        return None

    def ask_kernel() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return ask_kernel


def _has_ended(process: psutil.Process, deadline_s: float) -> bool:
    try:
        process.wait(timeout=deadline_s)
    except psutil.TimeoutExpired:
        # Nobody may be there to collect an orphan's exit code; it is gone all the same.
        try:
            return bool(process.status() == psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return True
    return True


def _log_path(state_dir: Path, name: str) -> Path:
    return state_dir / "logs" / f"{name}.log"


def _pid_path(state_dir: Path, name: str) -> Path:
    return state_dir / "pids" / f"{name}.json"
