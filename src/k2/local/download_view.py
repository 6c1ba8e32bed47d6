"""Show a download: bytes in, progress bars on a terminal or a line every few seconds out."""

from collections.abc import Callable, Mapping
from threading import Lock
from time import monotonic
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

_LINE_EVERY_S = 3.0
_MEGABYTE = 1_000_000


class DownloadView:
    """Progress of several downloads at once; ``received`` may be called from any thread."""

    def __init__(
        self,
        totals: Mapping[str, int],
        *,
        report: Callable[[str], None],
        console: Console | None,
    ) -> None:
        """Show one bar per title on ``console``, or lines through ``report`` without one.

        Args:
            totals: Title to bytes expected.
            report: Receives a line every few seconds when there are no bars.
            console: Where to draw, if it is a terminal.
        """
        self._totals = dict(totals)
        self._received = dict.fromkeys(totals, 0)
        self._report = report
        self._lock = Lock()
        self._line_at_s = monotonic() + _LINE_EVERY_S
        self._tasks: dict[str, TaskID] = {}
        self._bars: Progress | None = None
        if console is not None and console.is_terminal:
            self._bars = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                DownloadColumn(),
                TransferSpeedColumn(),
                TimeRemainingColumn(),
                console=console,
            )

    def __enter__(self) -> Self:
        """Draw the bars, empty."""
        if self._bars is not None:
            for title, total in self._totals.items():
                self._tasks[title] = self._bars.add_task(title, total=total)
            self._bars.start()
        else:
            self._report(f"downloading {self._summary()}")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the bars as they are."""
        if self._bars is not None:
            self._bars.stop()

    def received(self, title: str, size_bytes: int) -> None:
        """Count bytes of one title; negative when an attempt was given up."""
        with self._lock:
            self._received[title] += size_bytes
            if self._bars is not None:
                self._bars.update(self._tasks[title], completed=self._received[title])
            elif monotonic() >= self._line_at_s:
                self._line_at_s = monotonic() + _LINE_EVERY_S
                self._report(f"downloading {self._summary()}")

    def _summary(self) -> str:
        return ", ".join(
            f"{title} {self._received[title] / _MEGABYTE:.0f} of {total / _MEGABYTE:.0f} MB"
            for title, total in self._totals.items()
        )
