"""The soak's report: one HTML file with everything in it, light or dark as the reader's screen is.

The plots are SVG written by ``soak.plot``: some lines of our own instead of a plotting library
with its fonts and its megabytes, or a script that a mail reader would not run.
"""

from collections.abc import Callable, Iterator
from html import escape
from pathlib import Path

from soak.forms import FORMS
from soak.plot import Chart, Series, figure
from soak.profile import PROFILE_NAME, Check, Profile, Sample, replace

STYLE = """
:root { color-scheme: light dark; --page: #ffffff; --text: #1c2430; --soft: #5a6675;
  --line: #dfe4ea; --shade: #f2f4f7; --good: #0a6b3d; --bad: #b3261e;
  --c0: #0b62b0; --c1: #b04a00; --c2: #5b3fb0; --c3: #00736b; }
@media (prefers-color-scheme: dark) { :root { --page: #12161c; --text: #e4e9ef; --soft: #9aa7b5;
  --line: #2c3541; --shade: #1a2029; --good: #58c98d; --bad: #ff8a80;
  --c0: #6cb4ff; --c1: #ffab66; --c2: #b9a4ff; --c3: #5fd6c9; } }
body { margin: 2rem auto; padding: 0 1rem; max-width: 62rem; background: var(--page);
  color: var(--text); font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
p { margin: .4rem 0; } .soft, figcaption span { color: var(--soft); }
.good { color: var(--good); } .bad { color: var(--bad); } .verdict { font-weight: 600; }
.wide { overflow-x: auto; } table { border-collapse: collapse; }
th, td { padding: .25rem .9rem .25rem 0; text-align: left; border-bottom: 1px solid var(--line); }
figure { margin: 0 0 1.2rem; } figcaption { font-weight: 600; } svg { width: 100%; height: auto; }
svg text { font: 11px system-ui, sans-serif; fill: var(--soft); text-anchor: middle; }
svg .end { text-anchor: end; } svg .start, svg .label { text-anchor: start; }
.grid { stroke: var(--line); } .warm-up { fill: var(--shade); opacity: .7; }
.limit { stroke: var(--bad); stroke-dasharray: 4 4; } .series { fill: none; stroke-width: 1.6; }
.s0 { stroke: var(--c0); } .s1 { stroke: var(--c1); } .s2 { stroke: var(--c2); }
.s3 { stroke: var(--c3); } svg .t0 { fill: var(--c0); } svg .t1 { fill: var(--c1); }
svg .t2 { fill: var(--c2); } svg .t3 { fill: var(--c3); }
"""


def write_report(path: Path, profile: Profile) -> None:
    """Write the page, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    replace(path, page(profile).encode())


def page(profile: Profile) -> str:
    """Return the page."""
    title = f"Soak, {profile.test_metadata.form}"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n<body>\n<main>\n"
        + "\n".join(_body(title, profile))
        + "\n</main>\n</body></html>\n"
    )


def _body(title: str, profile: Profile) -> Iterator[str]:
    about, total = profile.test_metadata, profile.summary_statistics
    yield f"<h1>{escape(title)}</h1>"
    yield _verdict(profile)
    yield (
        f'<p class="soft">{escape(about.started)} · {escape(about.machine)} · '
        + " · ".join(f"{escape(name)} {escape(v)}" for name, v in about.versions.items())
        + "</p>"
    )
    yield (
        f"<p>{len(about.symbols)} symbols, {about.trades_per_s:g} trades a second asked of the "
        f"exchange in a box, a real Kafka, capture with two legs, archive. "
        f"{about.warm_up_s / 60:g} minutes of warm-up (shaded), then "
        f"{about.duration_s / 60:,.1f} of {about.duration_wanted_s / 60:,g} minutes measured. "
        f"Connections are replaced at {about.connection_age_max_s:g} s at the latest.</p>"
    )
    latency = ", ".join(f"{name} {value:g} ms" for name, value in about.latency_ms.items())
    yield (
        f"<p>{total.total_messages:,} messages, {total.avg_message_rate:g} a second. Capture "
        f"{total.initial_rss_mb:.1f} MB at first, {total.final_rss_mb:.1f} MB at last "
        f"({total.memory_growth_mb:+.1f}). Socket to committed in Kafka: {latency or 'unknown'}."
        "</p>"
    )
    if about.checks:
        yield "<h2>Bounds</h2>"
        yield _table(about.checks)
    if about.alarming_lines:
        yield "<h2>Alarming log lines</h2>"
        yield from (f"<p><code>{escape(line[:400])}</code></p>" for line in about.alarming_lines)
    yield "<h2>Over time</h2>"
    yield from (figure(chart) for chart in charts(profile))
    yield f'<p class="soft">MB are 2<sup>20</sup> bytes. All samples: {PROFILE_NAME}</p>'


def _verdict(profile: Profile) -> str:
    about = profile.test_metadata
    if not about.checks:
        return f'<p class="verdict">Under way: {escape(about.ended)}.</p>'
    broken = [check.what for check in about.checks if not check.kept]
    if broken:
        return f'<p class="verdict bad">Not kept: {escape(", ".join(broken))}.</p>'
    return f'<p class="verdict good">All {len(about.checks)} bounds were kept.</p>'


def _table(checks: list[Check]) -> str:
    rows = "".join(
        f"<tr><td>{escape(one.what)}</td><td>{escape(one.bound)}</td><td>{escape(one.found)}</td>"
        f'<td class="{"good" if one.kept else "bad"}">{"yes" if one.kept else "NO"}</td></tr>'
        for one in checks
    )
    head = "".join(f'<th scope="col">{name}</th>' for name in ("what", "bound", "found", "kept"))
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    return f'<div class="wide">{table}</div>'


def charts(profile: Profile) -> list[Chart]:
    """Return what is drawn: memory, rate, latency, rotations, CPU."""
    samples = profile.test_metadata.warm_up_samples + profile.memory_samples
    form = FORMS.get(profile.test_metadata.form)
    limit = form.rss_max_mb if form else None

    def line(name: str, value: Callable[[Sample], float | None]) -> Series:
        return Series(name, [(s.elapsed_s / 60, value(s)) for s in samples])

    # What the first sample has of rates is nothing: there is none before it.
    return [
        Chart(
            "Resident memory",
            "MB",
            [line("capture", lambda s: s.rss_mb), line("archive", lambda s: s.archive_rss_mb)],
            limit,
        ),
        Chart(
            "Messages received",
            "a second",
            [line("received", lambda s: s.message_rate or None)],
        ),
        Chart(
            "Socket to committed in Kafka",
            "ms",
            [line("p50", lambda s: s.latency_p50_ms), line("p99", lambda s: s.latency_p99_ms)],
        ),
        Chart(
            "Connections replaced",
            "since the start",
            [
                line("rotations", lambda s: float(s.rotations)),
                line("reconnects", lambda s: float(s.reconnections)),
            ],
        ),
        Chart(
            "CPU",
            "cores",
            [line("capture", lambda s: s.cores), line("archive", lambda s: s.archive_cores)],
        ),
    ]
