"""Small line charts as SVG text: series in, one ``<figure>`` out, no script and no library.

Colours come from the page's CSS variables, so that one chart serves light and dark. A series is
also told by its dashes and by a label at its end, for those who see no difference in colour.
"""

import math
from collections.abc import Iterator, Sequence
from html import escape
from typing import NamedTuple

WIDTH, HEIGHT = 720, 230
LEFT, RIGHT, TOP, BOTTOM = 56, 96, 12, 34
POINTS_MAX = 720
"""A point for each pixel: more cannot be seen."""
TICKS_ABOUT = 5
LABEL_HEIGHT = 13
DASHES = ("none", "6 3", "2 3", "9 3 2 3")


class Series(NamedTuple):
    """One line; where y is None it is interrupted."""

    name: str
    points: Sequence[tuple[float, float | None]]


class Chart(NamedTuple):
    """What is drawn. x is minutes since the measured time began."""

    title: str
    unit: str
    series: Sequence[Series]
    limit: float | None = None
    """A bound to draw, if it is near enough to be seen."""


class _Scale(NamedTuple):
    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def figure(chart: Chart) -> str:
    """Draw a chart with its caption."""
    caption = f"{escape(chart.title)} <span>({escape(chart.unit)})</span>"
    return (
        f"<figure><figcaption>{caption}</figcaption>\n"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(_told(chart))}">\n'
        + "\n".join(_drawn(chart))
        + "\n</svg></figure>"
    )


def ticks(low: float, high: float) -> list[float]:
    """Return round values within a range, about five of them."""
    raw = (high - low) / TICKS_ABOUT
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= raw)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [n * step for n in range(first, last + 1)]


def _drawn(chart: Chart) -> Iterator[str]:
    xs = [x for one in chart.series for x, _ in one.points]
    ys = [y for one in chart.series for _, y in one.points if y is not None]
    if not ys or min(xs) == max(xs):
        yield f'<text x="{WIDTH / 2}" y="{HEIGHT / 2}" class="tick">nothing yet</text>'
        return
    top = max(ys) * 1.08 or 1.0
    shows_limit = chart.limit is not None and chart.limit <= 1.5 * top
    if shows_limit and chart.limit is not None:
        top = max(top, chart.limit * 1.05)
    to_x = _Scale(min(xs), max(xs), LEFT, WIDTH - RIGHT)
    to_y = _Scale(min(0.0, *ys), top, HEIGHT - BOTTOM, TOP)
    yield from _axes(to_x, to_y)
    if to_x.low < 0:
        yield (
            f'<rect x="{LEFT}" y="{TOP}" width="{to_x(0) - LEFT:.1f}" '
            f'height="{HEIGHT - BOTTOM - TOP}" class="warm-up"/>'
        )
    if shows_limit and chart.limit is not None:
        y = to_y(chart.limit)
        yield f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" class="limit"/>'
        yield f'<text x="{LEFT + 4}" y="{y - 4:.1f}" class="tick start">limit</text>'
    label_ys = _apart([to_y(_last_y(one)) for one in chart.series])
    for number, (one, label_y) in enumerate(zip(chart.series, label_ys, strict=True)):
        yield (
            f'<path d="{_path(one, to_x, to_y)}" class="series s{number}" '
            f'stroke-dasharray="{DASHES[number % len(DASHES)]}"/>'
        )
        yield (
            f'<text x="{WIDTH - RIGHT + 6}" y="{label_y + 4:.1f}" class="label t{number}">'
            f"{escape(one.name)}</text>"
        )


def _axes(to_x: _Scale, to_y: _Scale) -> Iterator[str]:
    for value in ticks(to_y.low, to_y.high):
        y = to_y(value)
        yield f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>'
        yield f'<text x="{LEFT - 6}" y="{y + 4:.1f}" class="tick end">{value:,g}</text>'
    for value in ticks(to_x.low, to_x.high):
        yield (
            f'<text x="{to_x(value):.1f}" y="{HEIGHT - BOTTOM + 16}" class="tick">{value:,g}</text>'
        )
    yield f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 4}" class="tick end">minutes</text>'


def _path(one: Series, to_x: _Scale, to_y: _Scale) -> str:
    parts, drawing = [], False
    for x, y in one.points[:: max(1, len(one.points) // POINTS_MAX)]:
        if y is not None:
            parts.append(f"{'L' if drawing else 'M'}{to_x(x):.1f} {to_y(y):.1f}")
        drawing = y is not None
    return "".join(parts)


def _last_y(one: Series) -> float:
    return next((y for _, y in reversed(one.points) if y is not None), 0.0)


def _apart(wanted: Sequence[float]) -> list[float]:
    """Move labels down until none covers another."""
    placed = list(wanted)
    above = -math.inf
    for place in sorted(range(len(placed)), key=lambda n: wanted[n]):
        placed[place] = above = max(placed[place], above + LABEL_HEIGHT)
    over = max(0.0, above - (HEIGHT - BOTTOM))
    return [y - over for y in placed]


def _told(chart: Chart) -> str:
    """Return the chart for somebody who hears it."""
    parts = []
    for one in chart.series:
        ys = [y for _, y in one.points if y is not None]
        if ys:
            parts.append(f"{one.name} {min(ys):,.4g} to {max(ys):,.4g}, last {ys[-1]:,.4g}")
    return f"{chart.title} in {chart.unit}: {'; '.join(parts) or 'nothing yet'}"
