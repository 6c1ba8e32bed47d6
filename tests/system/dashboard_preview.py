"""Draws a shipped dashboard from real answers, as one page without scripts.

Grafana cannot be had where k2 is built. This shows what the panels ask for, in their places, units
and colours; it is no picture of Grafana, and says so.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from typing import Any

NOTE = "Preview drawn by k2's own test from a real Prometheus. Not Grafana."
INK = {"green": "#2f8f3f", "yellow": "#b98a00", "red": "#c4262e", "blue": "#2b6cb0"}
PALETTE = ("#2b6cb0", "#c05621", "#2f8f3f", "#6b46c1", "#b83280", "#0f766e", "#7b5e00", "#4a5568")
PLOT_HEIGHT = 190
COLUMN_WIDTH, PANEL_EDGE = 61, 24
"""Of the grid on a page 1500 wide: what a drawing is as wide as."""
AXIS = 76
EMPTY = '<p class="empty">No data</p>'
STYLE = """
body{margin:0;padding:16px;background:#f4f5f5;color:#1b1e23;font:13px/1.35 system-ui,sans-serif}
h1{font-size:20px;margin:0} p{margin:2px 0 12px}
main{display:grid;grid-template-columns:repeat(24,1fr);grid-auto-rows:30px;gap:6px}
h2{font-size:14px;margin:0;align-self:end} h3{font-size:12px;margin:0 0 2px;font-weight:600}
section{background:#fff;border:1px solid #d8dade;border-radius:3px;padding:6px 8px;overflow:hidden;
  display:flex;flex-direction:column;min-width:0}
svg{width:100%;flex:1;min-height:0} text{font-size:11px;fill:#4a5058}
ul{list-style:none;margin:2px 0 0;padding:0;display:flex;flex-wrap:wrap;gap:0 10px;font-size:11px;
  max-height:30px;overflow:hidden}
li i{display:inline-block;width:10px;height:3px;margin-right:4px;vertical-align:middle}
.values{flex:1;display:flex;gap:4px;min-height:0} .values b{flex:1;border-radius:3px;color:#fff;
  display:flex;flex-direction:column;justify-content:center;align-items:center;font-size:15px;
  overflow:hidden;min-width:0} .values small{font-size:10px;font-weight:400;white-space:nowrap}
table{border-collapse:collapse;font-size:11px} th,td{text-align:left;padding:2px 12px 2px 0}
"""


@dataclass(frozen=True)
class Series:
    """One line of an answer: its name by the legend, its labels, its points in time order."""

    name: str
    labels: Mapping[str, str]
    points: Sequence[tuple[float, float]]

    @property
    def last(self) -> float:
        """The newest value."""
        return self.points[-1][1]


def page(board: dict[str, Any], answers: Mapping[int, Sequence[Series]]) -> str:
    """Return the page of a dashboard; ``answers`` go by the numbers of its panels."""
    parts = []
    for panel in board["panels"]:
        title = escape(panel["title"])
        if panel["type"] == "row":
            parts.append(f'<h2 style="{_place(panel)}">{title}</h2>')
        else:
            drawn = _drawn(panel, answers[panel["id"]])
            parts.append(f'<section style="{_place(panel)}"><h3>{title}</h3>{drawn}</section>')
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(board["title"])}'
        f"</title><style>{STYLE}</style><body><h1>{escape(board['title'])}</h1>"
        f"<p>{escape(board['description'])} <em>{NOTE}</em></p><main>{''.join(parts)}</main>"
    )


def written(number: float, unit: str) -> str:
    """Write a value in its unit, short."""
    if unit == "s":
        return _duration(number)
    if unit == "percentunit":
        return f"{number * 100:.4g}%"
    if unit == "bytes":
        steps = min(int(math.log(max(abs(number), 1), 1024)), 4)
        return f"{number / 1024**steps:.3g} {('B', 'KiB', 'MiB', 'GiB', 'TiB')[steps]}"
    per_second = {"mps": " msg/s", "recps": " rec/s", "rowsps": " rows/s", "cps": "/s"}
    return f"{_short(number)}{per_second.get(unit, '')}"


def _short(number: float) -> str:
    if abs(number) >= 1e6:
        return f"{number / 1e6:.3g} M"
    return f"{number / 1e3:.3g} k" if abs(number) >= 1e4 else f"{number:.4g}"


def _duration(seconds: float) -> str:
    size = abs(seconds)
    for limit, divisor, name in ((1, 1e-3, "ms"), (120, 1, "s"), (7200, 60, "min")):
        if size < limit:
            return f"{seconds / divisor:.3g} {name}"
    return f"{seconds / 3600:.3g} h"


def _place(panel: dict[str, Any]) -> str:
    at = panel["gridPos"]
    return f"grid-column:{at['x'] + 1}/span {at['w']};grid-row:{at['y'] + 1}/span {at['h']}"


def _drawn(panel: dict[str, Any], series: Sequence[Series]) -> str:
    if not series:
        return EMPTY
    draw = {
        "stat": _values,
        "timeseries": _lines,
        "state-timeline": _states,
        "table": _table,
    }[panel["type"]]
    return draw(panel, series)


def _look(defaults: dict[str, Any], number: float) -> tuple[str, str]:
    """Return text and colour of a value: what it stands for, else itself by its limits."""
    for mapping in defaults.get("mappings", ()):
        if meaning := mapping["options"].get(f"{number:g}"):
            return meaning["text"], INK[meaning["color"]]
    color = "green"
    for step in defaults["thresholds"]["steps"]:
        if step["value"] is None or number >= step["value"]:
            color = step["color"]
    return written(number, defaults["unit"]), INK[color]


def _values(panel: dict[str, Any], series: Sequence[Series]) -> str:
    shown = []
    for one in series:
        text, color = _look(panel["fieldConfig"]["defaults"], one.last)
        name = f"<small>{escape(one.name)}</small>"
        shown.append(f'<b style="background:{color}">{escape(text)}{name}</b>')
    return f'<div class="values">{"".join(shown)}</div>'


def _lines(panel: dict[str, Any], series: Sequence[Series]) -> str:
    defaults = panel["fieldConfig"]["defaults"]
    numbers = [number for one in series for _, number in one.points]
    low, high = min([*numbers, defaults.get("min", math.inf)]), max(numbers)
    high = high if high > low else low + 1
    width, (start, end) = _width(panel), _span(series)

    def x(at: float) -> float:
        return AXIS + (at - start) / (end - start) * (width - AXIS - 2)

    def y(number: float) -> float:
        height: float = (number - low) / (high - low) * (PLOT_HEIGHT - 8)
        return PLOT_HEIGHT - height

    parts = []
    for number in (low, (low + high) / 2, high):
        text = escape(written(number, defaults["unit"]))
        parts.append(
            f'<path d="M{AXIS} {y(number):.1f}H{width}" stroke="#e3e5e8"/>'
            f'<text x="{AXIS - 6}" y="{y(number) + 4:.1f}" text-anchor="end">{text}</text>'
        )
    parts += [
        f'<path d="M{AXIS} {y(step["value"]):.1f}H{width}" stroke="{INK[step["color"]]}" '
        'stroke-dasharray="5 4"/>'
        for step in defaults.get("thresholds", {}).get("steps", ())
        if step["value"] is not None and low < step["value"] < high
    ]
    for place, one in enumerate(series):
        points = " ".join(f"{x(at):.1f},{y(number):.1f}" for at, number in one.points)
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{PALETTE[place % len(PALETTE)]}" '
            'stroke-width="1.6"/>'
        )
    names = "".join(
        f'<li><i style="background:{PALETTE[place % len(PALETTE)]}"></i>{escape(one.name)}</li>'
        for place, one in enumerate(series)
    )
    return f"{_svg(panel, parts)}<ul>{names}</ul>"


def _states(panel: dict[str, Any], series: Sequence[Series]) -> str:
    defaults, parts = panel["fieldConfig"]["defaults"], []
    width, (start, end) = _width(panel), _span(series)
    height = PLOT_HEIGHT / len(series)
    for row, one in enumerate(series):
        begins = _changes(one.points)
        for (at, state), (until, _) in zip(begins, [*begins[1:], (end, 0)], strict=True):
            left, right = ((moment - start) / (end - start) * width for moment in (at, until))
            parts.append(
                f'<rect x="{left:.1f}" y="{row * height + 14:.1f}" width="{right - left:.1f}" '
                f'height="{height - 18:.1f}" fill="{_look(defaults, state)[1]}"/>'
            )
        name = f"{one.name}: {_look(defaults, one.last)[0]}"
        parts.append(f'<text x="0" y="{row * height + 10:.1f}">{escape(name)}</text>')
    return _svg(panel, parts)


def _table(panel: dict[str, Any], series: Sequence[Series]) -> str:
    columns = panel["transformations"][0]["options"]["include"]["names"]
    head = "".join(f"<th>{escape(name)}</th>" for name in columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(one.labels.get(c, ''))}</td>" for c in columns) + "</tr>"
        for one in series
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def _svg(panel: dict[str, Any], parts: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {_width(panel)} {PLOT_HEIGHT + 6}" role="img" '
        f'aria-label="{escape(panel["title"])}">{"".join(parts)}</svg>'
    )


def _span(series: Sequence[Series]) -> tuple[float, float]:
    start = min(one.points[0][0] for one in series)
    end = max(one.points[-1][0] for one in series)
    return start, max(end, start + 1)


def _width(panel: dict[str, Any]) -> int:
    width: int = panel["gridPos"]["w"] * COLUMN_WIDTH - PANEL_EDGE
    return width


def _changes(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the points at which a state begins."""
    return [points[0], *(b for a, b in pairwise(points) if a[1] != b[1])]
