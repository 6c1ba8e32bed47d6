"""What ``k2 up`` says while it runs: lines, or a view of its own on a terminal."""

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live

from k2.local.stack import StackAddress
from k2.local.venue import Venue

if TYPE_CHECKING:
    from k2.local.observer import Observer

LINE_EVERY_S = 5.0
VIEW_PER_S = 4
_COMMANDS = (
    "k2 verify",
    "k2 tail",
    'k2 query "SELECT symbol, count(*) FROM trades GROUP BY 1"',
)

Places = dict[str, Path | str]
"""What to look at, and where it is."""


class Saying:
    """One run's voice; times are since it was made."""

    def __init__(self, console: Console) -> None:
        """Speak on a console."""
        self.console = console
        self._began_s = time.monotonic()

    def say(self, text: str) -> None:
        """Print a line as it is."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def say_ready(self, address: StackAddress) -> None:
        """Tell where Kafka and registry are."""
        self.say(
            f"Kafka {_local(address.bootstrap)} and registry "
            f"{_local(address.registry_url)} are ready ({self._elapsed()})"
        )

    async def show(self, observer: "Observer", places: Places) -> None:
        """Show what arrives, until cancelled."""
        shown = self._show_view if self.console.is_terminal else self._show_lines
        await shown(observer, places)

    async def _show_view(self, observer: "Observer", places: Places) -> None:
        with Live(console=self.console, refresh_per_second=VIEW_PER_S) as live:
            while True:
                title = f"k2 · {self._elapsed()}"
                live.update(observer.render(title=title, places=places))
                await asyncio.sleep(1 / VIEW_PER_S)

    async def _show_lines(self, observer: "Observer", places: Places) -> None:
        for name, place in places.items():
            self.say(f"{name}: {place}")
        seen_rows = False
        shown_at_s = time.monotonic()
        while True:
            await asyncio.sleep(0.1)
            if not seen_rows and observer.watcher.new_rows:
                seen_rows = True
                self.say(f"first new rows are in the lake ({self._elapsed()})")
            if time.monotonic() - shown_at_s >= LINE_EVERY_S:
                shown_at_s = time.monotonic()
                self.say(observer.line())

    def _elapsed(self) -> str:
        return f"{time.monotonic() - self._began_s:.1f} s"


def places_of(venue: Venue, environ: Mapping[str, str], state_dir: Path, *, named: bool) -> Places:
    """Return where lake, logs and pages of a run are.

    Args:
        venue: What is recorded.
        environ: The services' environment.
        state_dir: Of the run, absolute.
        named: Whether commands have to be told of the folder.
    """
    where = f" --state-dir {state_dir}" if named else ""
    return {
        "lake": _from_here(venue.lake_dir),
        "logs": _from_here(state_dir / "logs"),
        "status page": f"http://localhost:{environ['K2_HEALTH_PORT']}/",
        "health": f"http://localhost:{environ['K2_HEALTH_PORT']}/health",
        "metrics": f"http://localhost:{environ['K2_METRICS_PORT']}/metrics and "
        f"http://localhost:{environ['K2_ARCHIVE_METRICS_PORT']}/metrics",
        "ask": " · ".join(f"{command}{where}" for command in _COMMANDS),
    }


def _from_here(path: Path) -> Path:
    """Return the path as the user would type it."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _local(address: str) -> str:
    return address.replace("127.0.0.1", "localhost")
