"""What the shipped Alertmanager configuration asks of whoever installs it is in the runbook."""

from pathlib import Path

import yaml

ROOT = Path(__file__).parents[3]
CONFIG = ROOT / "config" / "alertmanager"
RUNBOOK = "docs/operations/runbooks/binance-streaming.md"


def test_the_file_without_which_nobody_is_told_is_explained_and_never_committed() -> None:
    text = (CONFIG / "alertmanager.yml").read_text("utf-8")
    http = yaml.safe_load(text)["global"]["http_config"]
    token = http["authorization"]["credentials_file"]
    assert f"{RUNBOOK}#alertmanager-tells-nobody" in text
    _, _, section = (ROOT / RUNBOOK).read_text("utf-8").partition("### Alertmanager tells nobody")
    assert f"`{token}`" in section
    folder, _, _ = token.partition("/")
    assert f"{folder}/" in (CONFIG / ".gitignore").read_text("utf-8").splitlines()
