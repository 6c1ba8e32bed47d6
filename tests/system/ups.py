"""``k2 up`` as a user has it: a process with a state directory, and what it said."""

import contextlib
import subprocess
import sys
import time
from pathlib import Path

import psutil  # type: ignore[import-untyped]  # ships no type information

from integration.harness import plain_environ, wait_for

START_MAX_S = 60.0


def up_environ(state_dir: Path) -> dict[str, str]:
    """Return the environment of a ``k2 up`` that keeps everything in one folder."""
    return {
        **plain_environ(),
        "K2_DLQ_DIR": str(state_dir / "dlq"),
        "K2_STATE_DIR": str(state_dir),
    }


def up_command(*flags: str, ports: str = "auto") -> list[str]:
    """Return the command line of a ``k2 up`` on the built-in exchange."""
    return [
        *(sys.executable, "-m", "k2", "up", "--exchange", "built-in"),
        *("--ports", ports, *flags),
    ]


class Up:
    """One ``k2 up`` in a state directory."""

    def __init__(self, state_dir: Path, *flags: str, ports: str = "auto") -> None:
        self.state_dir = state_dir
        self.output = state_dir.with_name(f"{state_dir.name}-{time.monotonic_ns()}.out")
        self.environ = up_environ(state_dir)
        with self.output.open("ab") as output:
            self.popen = subprocess.Popen(
                up_command(*flags, ports=ports),
                env=self.environ,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def said(self) -> str:
        """Return everything it printed."""
        return self.output.read_text(encoding="utf-8", errors="replace")

    def wait_until_said(self, words: str) -> None:
        """Wait until it has printed this; fail when it ends without."""
        wait_for(
            lambda: words in self.said() or self.popen.poll() is not None,
            what=f"k2 up to say {words!r}",
            deadline_s=START_MAX_S,
        )
        assert words in self.said(), self.said()

    def k2(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run one command in its state directory."""
        return subprocess.run(
            [sys.executable, "-m", "k2", *words],
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def children(self) -> list[psutil.Process]:
        """Return what it started, and what that started."""
        found: list[psutil.Process] = psutil.Process(self.popen.pid).children(recursive=True)
        return found

    def pid_of(self, word: str) -> int | None:
        """Return the child whose command line holds a word, if it runs."""
        for child in self.children():
            with contextlib.suppress(psutil.Error):
                if word in " ".join(child.cmdline()):
                    return int(child.pid)
        return None

    def pid_after(self, word: str, old: int) -> bool:
        """Say whether that child runs again, as another process."""
        return self.pid_of(word) not in (None, old)
