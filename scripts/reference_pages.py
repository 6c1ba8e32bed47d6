"""Write the reference pages that are made from the code: `python scripts/reference_pages.py`.

``--check`` only says whether they are up to date.
"""

import sys
from pathlib import Path

from k2.observability import metrics
from k2.observability.families import Counters, Families, Gauges
from k2.settings import Settings

DOCS = Path(__file__).parents[1] / "docs" / "reference"


def metrics_page() -> str:
    """Return every metric of every service."""
    lines = [
        "# Metrics",
        "",
        "`k2 stream` serves them on port 9091 (`K2_METRICS_PORT`), `k2 archive` on 9095",
        "(`K2_ARCHIVE_METRICS_PORT`), both at `/metrics`, as Prometheus text or OpenMetrics. Every",
        "series whose labels are known beforehand is there, at 0, from the start of the process.",
        "Written by `scripts/reference_pages.py` from `src/k2/observability/metrics.py`.",
    ]
    for title, families in (
        ("Both services", metrics.process),
        ("`k2 stream`", metrics.capture),
        ("`k2 archive`", metrics.archive),
    ):
        lines += ["", f"## {title}", "", "| name | type | labels | meaning |", "|---|---|---|---|"]
        lines += _rows(families)
    return "\n".join(lines) + "\n"


def settings_page() -> str:
    """Return every setting."""
    lines = [
        "# Settings",
        "",
        "Environment variables. A flag of the command line wins over them, and they win over the",
        "file `k2.env` of the state directory, which reading commands (`k2 verify` and others)",
        "follow. `k2 stream --print-config` shows what is in force. An unknown variable that",
        "begins with `K2_` or `BINANCE_` is refused. Written by `scripts/reference_pages.py` from",
        "`src/k2/settings/`.",
        "",
        "| variable | default | meaning |",
        "|---|---|---|",
    ]
    for field in Settings.model_fields.values():
        default = field.get_default(call_default_factory=True)
        lines.append(f"| `{field.validation_alias}` | {_shown(default)} | {field.description} |")
    return "\n".join(lines) + "\n"


def _rows(families: Families) -> list[str]:
    rows = []
    for family in sorted(families.own, key=lambda one: one.name):
        counter = isinstance(family, Counters) and not isinstance(family, Gauges)
        kind = "counter" if counter else "gauge" if isinstance(family, Gauges) else "histogram"
        name = f"{family.name}_total" if counter else family.name
        labels = ", ".join(f"`{label}`" for label in family.label_names)
        rows.append(f"| `{name}` | {kind} | {labels} | {family.documentation} |")
    return rows


def _shown(default: object) -> str:
    if default is None or default == "":
        return ""
    if isinstance(default, tuple):
        return f"`{','.join(str(one) for one in default)}`"
    return f"`{getattr(default, 'value', default)}`"


PAGES = {"metrics.md": metrics_page, "settings.md": settings_page}


def main() -> int:
    """Write the pages, or check them."""
    stale = 0
    for name, page in PAGES.items():
        path, text = DOCS / name, page()
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale += 1
        if "--check" not in sys.argv:
            path.write_text(text, encoding="utf-8")
    if "--check" in sys.argv and stale:
        sys.stderr.write("docs/reference is not up to date: python scripts/reference_pages.py\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
