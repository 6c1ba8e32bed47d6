"""Real Prometheus and Alertmanager on the shipped files, made fast enough for a test.

The files are copied and only their times are rewritten: what is asked, and of whom the answer is
told, stays as shipped.
"""

import json
import re
import shutil
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from integration.harness import Process, Room, wait_for
from k2.local.observe import Observed, prometheus_command
from k2.local.ports import pick_free
from system.alert_files import ALERTMANAGER
from system.conftest import program

FOR = "2s"
"""What every ``for:`` becomes in the copy."""
EVERY = "1s"
"""What every interval becomes."""
TOKEN = "only-in-a-file"


class Prometheus:
    """A running Prometheus."""

    def __init__(
        self, room: Room, *, stream_port: int, archive_port: int, alertmanager_port: int = 0
    ) -> None:
        """Start it on the room's services."""
        self.port = pick_free(1)[0]
        observed = Observed(stream_port, archive_port, self.port)
        command = prometheus_command(program("prometheus"), observed, state_dir=room.path)
        config = room.path / "prometheus" / "config"
        hurry(config / "prometheus.yml")
        for rules in (config / "rules").glob("*.yml"):
            hurry(rules)
        if alertmanager_port:
            targets = [{"targets": [f"127.0.0.1:{alertmanager_port}"]}]
            (config / "targets" / "alertmanager.yml").write_text(json.dumps(targets))
        self.process: Process = room.process("prometheus", list(command.argv)).start()
        wait_for(self._ready, what="Prometheus to be ready")

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return what an instant query finds."""
        query = urllib.parse.urlencode({"query": expression})
        result: list[dict[str, Any]] = self._ask(f"query?{query}")["result"]
        return result

    def knows_alertmanager(self) -> bool:
        """Say whether it has somebody to tell."""
        return bool(self._ask("alertmanagers")["activeAlertmanagers"])

    def firing(self) -> set[str]:
        """Return the names of the alerts that fire."""
        found = self.query('ALERTS{alertstate="firing"}')
        return {one["metric"]["alertname"] for one in found}

    def _ask(self, what: str) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self._url}/api/v1/{what}", timeout=10) as reply:
            found: dict[str, Any] = json.load(reply)["data"]
        return found

    def _ready(self) -> bool:
        assert self.process.running, self.process.log()
        try:
            with urllib.request.urlopen(f"{self._url}/-/ready", timeout=2):
                return True
        except (urllib.error.URLError, OSError):
            return False

    @property
    def _url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def start_alertmanager(room: Room, *, webhook_port: int) -> int:
    """Start Alertmanager with the shipped routes to a webhook here; return its port."""
    port = pick_free(1)[0]
    place = room.path / "alertmanager"
    (place / "secrets").mkdir(parents=True)
    (place / "secrets" / "webhook_token").write_text(TOKEN)
    config = place / "alertmanager.yml"
    shutil.copyfile(ALERTMANAGER, config)
    hurry(config, {"http://127.0.0.1:9094/": f"http://127.0.0.1:{webhook_port}/"})
    process = room.process(
        "alertmanager",
        [
            program("prometheus-alertmanager"),
            f"--config.file={config}",
            f"--storage.path={place / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--cluster.listen-address=",
        ],
    ).start()

    def ready() -> bool:
        assert process.running, process.log()
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/-/ready", timeout=2):
                return True
        except (urllib.error.URLError, OSError):
            return False

    wait_for(ready, what="Alertmanager to be ready")
    return port


def hurry(path: Path, replacements: Mapping[str, str] | None = None) -> None:
    """Rewrite a copy's times, and what else is asked; everything else stays."""
    text = path.read_text("utf-8")
    text = re.sub(r"\bfor: \w+$", f"for: {FOR}", text, flags=re.MULTILINE)
    text = re.sub(
        r"\b(interval|scrape_interval|scrape_timeout|evaluation_interval|group_interval): \w+$",
        rf"\1: {EVERY}",
        text,
        flags=re.MULTILINE,
    )
    text = re.sub(r"\bgroup_wait: \w+$", "group_wait: 0s", text, flags=re.MULTILINE)
    for old, new in (replacements or {}).items():
        assert old in text, f"{path} has no {old}"
        text = text.replace(old, new)
    path.write_text(text, encoding="utf-8")
