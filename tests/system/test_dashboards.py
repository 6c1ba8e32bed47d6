"""Real services and a real Prometheus: every panel of every dashboard has something to show."""

import json
import math
import os
import re
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import ViewportSize

from integration.harness import Room, wait_for
from k2.local.ports import pick_free
from system import observing
from system.dashboard_preview import Series, page, written
from system.observing import Prometheus
from system.status_browser import open_page
from unit.config.dashboard_files import Panel, Query, boards, panels

SCREENSHOTS = os.environ.get("DASHBOARD_SCREENSHOTS", "")
"""A folder to write pictures to, such as docs/images; empty writes none."""

# Pictures want rates over full windows, and an error budget that counts the ticks it is made for.
EVERY_S, SCRAPES = (15, 34) if SCREENSHOTS else (1, 10)
SHOWN_S = EVERY_S * SCRAPES
DEADLINE_S = 60 + 2 * SHOWN_S

ALL = {"instance": ".*", "symbol": ".*"}


class Dashboards:
    """Asks Prometheus what Grafana would ask, with some choice of the variables."""

    def __init__(self, prometheus: Prometheus) -> None:
        self._url = f"http://127.0.0.1:{prometheus.port}/api/v1"

    def ask(self, path: str, **query: str | float) -> Any:
        words = urllib.parse.urlencode(query)
        with urllib.request.urlopen(f"{self._url}/{path}?{words}", timeout=20) as reply:
            return json.load(reply)["data"]

    def series(self, query: Query, choice: Mapping[str, str]) -> list[Series]:
        """Return what a query finds now; NaN and infinity are no data."""
        found = self.ask("query", query=chosen(query, choice))["result"]
        return _series(query, [{**one, "values": [one["value"]]} for one in found])

    def lines(self, query: Query, choice: Mapping[str, str]) -> list[Series]:
        """Return what a query finds over the last while."""
        end = float(self.ask("query", query="time()")["result"][1])
        found = self.ask(
            "query_range", query=chosen(query, choice), start=end - SHOWN_S, end=end, step=EVERY_S
        )["result"]
        return _series(query, found)

    def answer(self, panel: Panel) -> list[Series]:
        """Return what a panel shows."""
        look = self.lines if panel.kind in ("timeseries", "state-timeline") else self.series
        return [one for query in panel.queries for one in look(query, ALL)]


def chosen(query: Query, choice: Mapping[str, str]) -> str:
    return re.sub(r"\$(\w+)", lambda name: choice[name[1]], query.expression)


def _series(query: Query, found: list[dict[str, Any]]) -> list[Series]:
    shown = []
    for one in found:
        points = [(at, float(number)) for at, number in one["values"]]
        if finite := [point for point in points if math.isfinite(point[1])]:
            shown.append(Series(_name(query, one["metric"]), one["metric"], finite))
    return shown


def _name(query: Query, labels: Mapping[str, str]) -> str:
    return re.sub(r"{{(\w+)}}", lambda label: labels.get(label[1], ""), query.legend).strip()


def without_data(dashboards: Dashboards, choices: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Return the queries that find nothing; ``choices`` go by dashboard."""
    return [
        f"{panel}: {chosen(query, choices[panel.board])}"
        for panel in panels()
        for query in panel.queries
        if not dashboards.series(query, choices[panel.board])
    ]


def wait_for_data(dashboards: Dashboards, choices: Mapping[str, Mapping[str, str]]) -> None:
    empty: list[str] = []

    def filled() -> bool:
        empty[:] = without_data(dashboards, choices)
        return not empty

    try:
        wait_for(filled, what="every panel to show something", deadline_s=DEADLINE_S)
    except AssertionError:
        pytest.fail("no data for\n" + "\n".join(empty))


@pytest.mark.integration
@pytest.mark.timeout(900)
def test_every_query_of_every_panel_finds_data(
    room: Room, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(observing, "EVERY", f"{EVERY_S}s")
    blue, green, archive = pick_free(3)
    room.extra |= {"K2_ARCHIVE_METRICS_PORT": str(archive)}
    room.exchange("--rate", "100")
    room.archive()
    room.extra |= {"K2_METRICS_PORT": str(blue), "K2_COLOR": "blue"}
    room.stream(name="blue")
    room.wait_until_archiving()
    prometheus = Prometheus(room, stream_port=blue, archive_port=archive)
    room.extra |= {"K2_METRICS_PORT": str(green), "K2_COLOR": "green"}
    room.stream(name="green")
    targets = room.path / "prometheus" / "config" / "targets"
    (targets / "binance-stream-green.yml").write_text(
        json.dumps([{"targets": [f"localhost:{green}"]}])
    )
    skip = {"fault": "skip", "count": 12, "symbol": "BTCUSDT", "stream": "aggTrade"}
    wait_for(
        lambda: prometheus.query('up{job="binance-stream"} == 1'), what="the capture to be scraped"
    )
    room.control("stream-faults", skip)
    wait_for(
        lambda: prometheus.query('k2_holes_healed_total{symbol="BTCUSDT"} >= 1'),
        what="a hole to be healed",
    )

    dashboards = Dashboards(prometheus)
    wait_for_data(dashboards, {board["title"]: ALL for board in boards()})
    # And with a choice made, as a reader would.
    of_capture = {"instance": f"localhost:{blue}", "symbol": "BTCUSDT"}
    of_archive = {"instance": f"localhost:{archive}", "symbol": ".*"}
    choices = {board["title"]: of_capture for board in boards()}
    wait_for_data(dashboards, choices | {"Binance Archive": of_archive})

    _every_choice_is_offered(dashboards, blue=blue, green=green, archive=archive)
    wait_for(
        lambda: prometheus.query(
            f'count_over_time(up{{instance="localhost:{green}"}}[1h]) >= {SCRAPES}'
        ),
        what="both colours to have been scraped for a while",
        deadline_s=DEADLINE_S,
    )
    for board in boards():
        mine = [panel for panel in panels() if panel.board == board["title"]]
        answers = {panel.body["id"]: dashboards.answer(panel) for panel in mine}
        for panel in mine:
            _legends_tell_apart(panel, answers[panel.body["id"]])
        _preview(board, answers, tmp_path)


def _every_choice_is_offered(
    dashboards: Dashboards, *, blue: int, green: int, archive: int
) -> None:
    captures = {f"localhost:{blue}", f"localhost:{green}"}
    wanted = {
        ("Binance Streaming", "instance"): captures,
        ("Binance Streaming", "symbol"): {"BTCUSDT", "ETHUSDT", "PEPEUSDT"},
        ("Binance Archive", "instance"): {f"localhost:{archive}"},
    }
    offered = {}
    for board in boards():
        for one in board["templating"]["list"]:
            if one["type"] == "query":
                metric, label = one["definition"].removeprefix("label_values(")[:-1].split(", ")
                values = dashboards.ask(f"label/{label}/values", **{"match[]": metric})
                offered[board["title"], one["name"]] = set(values)
    assert offered == wanted


def _legends_tell_apart(panel: Panel, series: list[Series]) -> None:
    if panel.kind == "table":
        return
    names = [one.name for one in series]
    assert all(names), panel
    assert len(names) == len(set(names)), f"{panel}: {sorted(names)}"
    assert not any("  " in name for name in names), f"{panel}: a label of {names} is empty"


def _preview(board: dict[str, Any], answers: Mapping[int, list[Series]], folder: Path) -> None:
    path = folder / f"{board['uid']}.html"
    path.write_text(page(board, answers), encoding="utf-8")
    with open_page(path.as_uri(), viewport=ViewportSize(width=1500, height=900)) as seen:
        assert seen.page.locator("section").count() == len(answers)
        assert seen.page.locator(".empty").count() == 0
        assert seen.complaints == []
        if SCREENSHOTS:
            name = board["uid"].removeprefix("k2-binance-")
            seen.page.screenshot(path=Path(SCREENSHOTS) / f"dashboard-{name}.png", full_page=True)


@pytest.mark.parametrize(
    ("number", "unit", "text"),
    [
        (0.0123, "s", "12.3 ms"),
        (15_300, "s", "4.25 h"),
        (-1.27, "s", "-1.27 s"),
        (104_857_600, "bytes", "100 MiB"),
        (0.999, "percentunit", "99.9%"),
        (12_345, "mps", "12.3 k msg/s"),
        (0, "none", "0"),
    ],
)
def test_values_are_written_in_their_unit(number: float, unit: str, text: str) -> None:
    assert written(number, unit) == text
