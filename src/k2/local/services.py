"""The services of a local run: started as production starts them, started again when they die."""

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path

from k2.errors import StopError
from k2.ingestion.supervision import ExitCode
from k2.local.processes import Child, Command, end_leftover, spawn
from k2.settings import SettingsError

RESTART_DELAY_MIN_S = 0.2
RESTART_DELAY_MAX_S = 5.0
HEALTHY_AFTER_S = 20.0
FAILURES_MAX = 5
STOP_DEADLINE_S = 7.0
WATCH_EVERY_S = 0.1


class Service:
    """One child kept running. A signal only delays it; failing by itself over and over ends it."""

    def __init__(self, command: Command, *, state_dir: Path, report: Callable[[str], None]) -> None:
        """Describe it; nothing runs before ``start``."""
        self.name = command.name
        self._command = command
        self._state_dir = state_dir
        self._report = report
        self._child: Child | None = None
        self._started_at_s = 0.0
        self._failures = 0

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._child is not None and self._child.return_code is None

    def said(self) -> str:
        """Return the last lines of its log."""
        return self._child.log_tail() if self._child is not None else ""

    async def start(self) -> None:
        """End what an earlier run left behind under this name, then start."""
        pid = await end_leftover(self.name, state_dir=self._state_dir, deadline_s=STOP_DEADLINE_S)
        if pid is not None:
            self._report(f"ended {self.name} (process {pid}), left running by an earlier k2")
        await self._spawn()

    async def keep(self) -> None:
        """Start it again whenever it ends, until cancelled.

        Raises:
            SettingsError: If it says that its settings are wrong.
            StopError: If it keeps failing.
        """
        while True:
            child = self._child
            if child is None or child.return_code is None:
                await asyncio.sleep(WATCH_EVERY_S)
                continue
            code = child.return_code
            if time.monotonic() - self._started_at_s > HEALTHY_AFTER_S:
                self._failures = 0
            # A signal is somebody's doing, not the service's own verdict on its state.
            if code > 0:
                self._failures += 1
            if code == ExitCode.CONFIGURATION:
                tail = child.log_tail()
                raise SettingsError(last_reason(tail) or f"{self.name} will not run:\n{tail}")
            if self._failures >= FAILURES_MAX:
                raise StopError(
                    f"{self.name} ended with {code} and will not run:\n{child.log_tail()}"
                )
            delay_s = min(RESTART_DELAY_MAX_S, RESTART_DELAY_MIN_S * 2**self._failures)
            how = f"was killed by signal {-code}" if code < 0 else f"ended with {code}"
            why = f": {reason}" if code > 0 and (reason := last_reason(child.log_tail())) else ""
            self._report(f"{self.name} {how}{why}; starting it again")
            await asyncio.sleep(delay_s)
            await self._spawn()

    async def stop(self) -> int | None:
        """End it, and kill it if it does not; return its exit code."""
        child, self._child = self._child, None
        return None if child is None else await child.terminate(deadline_s=STOP_DEADLINE_S)

    async def _spawn(self) -> None:
        self._child = await spawn(self._command, state_dir=self._state_dir)
        self._started_at_s = time.monotonic()


def last_reason(log_tail: str) -> str:
    """Return why a service says it ended: the reason in the last of its JSON log lines."""
    for line in reversed(log_tail.splitlines()):
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict) and event.get("level") == "error":
            return str(event.get("reason", ""))
    return ""
