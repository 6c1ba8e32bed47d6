"""``k2 up --observe``: Prometheus beside it, without Docker."""

import json
import re
import signal
import urllib.parse
import urllib.request
from pathlib import Path

import pytest

from integration.harness import wait_for
from system.conftest import StartUp, program

pytestmark = pytest.mark.integration


def test_prometheus_answers_the_runbooks_query_and_ends_with_k2_up(
    tmp_path: Path, start_up: StartUp
) -> None:
    program("prometheus")
    up = start_up(tmp_path / "state", "--observe")
    up.wait_until_said("first new rows are in the lake")
    found = re.search(r"Prometheus: (http://localhost:\d+)$", up.said(), re.MULTILINE)
    assert found, up.said()

    def received() -> float:
        # The seed's own line: curl -s http://localhost:9090/api/v1/query?query=...
        query = urllib.parse.urlencode({"query": "sum(binance_messages_received_total)"})
        with urllib.request.urlopen(f"{found[1]}/api/v1/query?{query}", timeout=5) as reply:
            result = json.load(reply)["data"]["result"]
        return float(result[0]["value"][1]) if result else 0.0

    wait_for(received, what="Prometheus to have received trades counted")
    children = up.children()
    assert any("prometheus" in child.name() for child in children)
    up.popen.send_signal(signal.SIGINT)
    assert up.popen.wait(30) == 0, up.said()
    assert not any(child.is_running() for child in children)
    assert (up.state_dir / "prometheus" / "data").is_dir()
    assert up.k2("down", "--delete").returncode == 0
    assert not (up.state_dir / "prometheus").exists()


def test_without_prometheus_it_says_so_and_goes_on(
    tmp_path: Path, start_up: StartUp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    up = start_up(tmp_path / "state", "--observe")
    up.wait_until_said("first new rows are in the lake")
    assert "Prometheus is not installed" in up.said()
    up.popen.send_signal(signal.SIGINT)
    assert up.popen.wait(30) == 0, up.said()
