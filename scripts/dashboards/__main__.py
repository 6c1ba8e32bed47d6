"""Write every dashboard anew."""

import argparse
import json
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from scripts.dashboards import archive, releases, streaming

SHIPPED = Path(__file__).parents[2] / "config" / "grafana" / "dashboards"
DASHBOARDS = (streaming.dashboard, archive.dashboard, releases.dashboard)


def main() -> None:
    """Write them to the checkout, or to ``--to``."""
    parser = argparse.ArgumentParser(prog="python -m scripts.dashboards", description=__doc__)
    parser.add_argument("--to", type=Path, default=SHIPPED, help="a folder; default: %(default)s")
    folder: Path = parser.parse_args().to
    for build in DASHBOARDS:
        made = build().build()
        text = json.dumps(made, cls=JSONEncoder, indent=2, sort_keys=True)
        (folder / f"{made.uid}.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
