"""The screen of ``k2 top``."""

import time
from collections.abc import Callable, Sequence
from typing import ClassVar

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import BindingType
from textual.containers import VerticalScroll
from textual.widgets import DataTable, Footer, Static

from k2.cli.status_events import statuses
from k2.cli.status_text import (
    LEG_COLUMNS,
    TAPE_COLUMNS,
    facts,
    leg_row,
    problem_lines,
    span,
    tape_row,
    verdict,
)
from k2.ingestion.health import Health

TICK_S = 1.0


class TopScreen(App[None]):
    """One capture, as its ``/events`` tell it."""

    TITLE = "k2 top"
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [("q", "quit", "Quit"), ("space", "hold", "Hold still")]
    CSS = """
    #verdict { padding: 0 1; text-style: bold; }
    #verdict.healthy { background: $success-muted; }
    #verdict.degraded { background: $warning-muted; }
    #verdict.unhealthy { background: $error-muted; }
    #problems, #facts { padding: 0 1; height: auto; }
    #legs { height: auto; max-height: 8; margin: 1 0 0 0; }
    #tapes { height: auto; margin: 1 0 0 0; }
    """

    def __init__(self, url: str, *, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        """Name the service; it need not run yet."""
        super().__init__()
        self._url = url
        self._monotonic_s = monotonic_s
        self._gone_since_s: float | None = monotonic_s()
        self._why = "connecting"
        self._held = False

    def compose(self) -> ComposeResult:
        """Lay the screen out."""
        with VerticalScroll():
            yield Static(id="verdict", markup=False)
            yield Static(id="problems", markup=False)
            yield Static(id="facts", markup=False)
            yield DataTable[str | Text](id="legs", cursor_type="none", show_cursor=False)
            yield DataTable[str | Text](id="tapes", cursor_type="row")
        yield Footer()

    def on_mount(self) -> None:
        """Begin to listen."""
        for name, columns in (("#legs", LEG_COLUMNS), ("#tapes", TAPE_COLUMNS)):
            table = self.query_one(name, DataTable)
            for column in columns:
                table.add_column(column, key=column)
        self.query_one("#tapes").focus()
        self._tell_gone()
        self.set_interval(TICK_S, self._tell_gone)
        self.run_worker(self._listen(), exclusive=True)

    def action_hold(self) -> None:
        """Hold still, or go on."""
        self._held = not self._held
        self.sub_title = "held" if self._held else ""

    async def _listen(self) -> None:
        async for found in statuses(self._url):
            if isinstance(found, Health):
                self._gone_since_s = None
                if not self._held:
                    self._show(found)
            else:
                self._why = str(found)
                if self._gone_since_s is None:
                    self._gone_since_s = self._monotonic_s()
                self._tell_gone()

    def _tell_gone(self) -> None:
        if self._gone_since_s is None:
            return
        gone_s = self._monotonic_s() - self._gone_since_s
        self._say(
            "unhealthy", f"✕ {self._url} has not been answering for {span(gone_s)}: {self._why}"
        )
        self.query_one("#problems", Static).update("Below is what it said last, if anything.")

    def _show(self, health: Health) -> None:
        self._say(health.status, verdict(health))
        self.query_one("#problems", Static).update("\n".join(problem_lines(health)))
        self.query_one("#facts", Static).update("\n".join(facts(health)))
        legs = [leg_row(leg, health.legs) for leg in health.legs]
        _fill(self.query_one("#legs", DataTable), LEG_COLUMNS, legs)
        tapes = [tape_row(tape) for tape in health.tapes]
        _fill(self.query_one("#tapes", DataTable), TAPE_COLUMNS, tapes)

    def _say(self, status: str, line: str) -> None:
        widget = self.query_one("#verdict", Static)
        widget.set_classes(status)
        widget.update(line)


def _fill(
    table: "DataTable[str | Text]", columns: Sequence[str], rows: Sequence[tuple[str, ...]]
) -> None:
    """Show these rows, each under its first cell, and leave what has not changed alone."""
    known = {str(key.value) for key in table.rows}
    for gone in known - {row[0] for row in rows}:
        table.remove_row(gone)
    for row in rows:
        if row[0] not in known:
            table.add_row(*row, key=row[0])
            continue
        for column, value in zip(columns, row, strict=True):
            if table.get_cell(row[0], column) != value:
                table.update_cell(row[0], column, value, update_width=True)
