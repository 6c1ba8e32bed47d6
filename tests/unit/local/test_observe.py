import json
import socket
from pathlib import Path

import pytest

from k2.errors import StopError
from k2.local.observe import Observed, prometheus_command, require_unused, shipped_config

OBSERVED = Observed(stream_port=21091, archive_port=0, prometheus_port=21090)


def test_the_shipped_configuration_is_run_unchanged(tmp_path: Path) -> None:
    command = prometheus_command("prometheus", OBSERVED, state_dir=tmp_path)
    config = tmp_path / "prometheus" / "config"
    assert f"--config.file={config / 'prometheus.yml'}" in command.argv
    copied = [path for path in sorted(config.rglob("*.yml")) if path.parent.name != "targets"]
    assert len(copied) >= 3
    for path in copied:
        shipped = shipped_config() / path.relative_to(config)
        assert path.read_text() == shipped.read_text()


def test_the_ports_in_use_are_scraped_and_those_switched_off_are_not(tmp_path: Path) -> None:
    prometheus_command("prometheus", OBSERVED, state_dir=tmp_path)
    targets = tmp_path / "prometheus" / "config" / "targets"
    listed = {path.stem: json.loads(path.read_text()) for path in targets.iterdir()}
    assert listed == {
        "binance-stream": [{"targets": ["localhost:21091"]}],
        "k2-archive": [],
        "prometheus": [{"targets": ["localhost:21090"]}],
        "alertmanager": [],
    }


def test_every_job_of_the_configuration_has_its_targets(tmp_path: Path) -> None:
    prometheus_command("prometheus", OBSERVED, state_dir=tmp_path)
    text = (shipped_config() / "prometheus.yml").read_text()
    for name in OBSERVED.targets():
        assert f"targets/{name}*.yml" in text
        assert (shipped_config() / "targets" / f"{name}.yml").is_file()


def test_it_listens_on_loopback_and_keeps_its_data_in_the_state_directory(tmp_path: Path) -> None:
    argv = prometheus_command("/bin/prometheus", OBSERVED, state_dir=tmp_path).argv
    assert argv[0] == "/bin/prometheus"
    assert "--web.listen-address=127.0.0.1:21090" in argv
    assert f"--storage.tsdb.path={tmp_path / 'prometheus' / 'data'}" in argv


def test_rules_that_are_not_shipped_any_more_do_not_stay(tmp_path: Path) -> None:
    stale = tmp_path / "prometheus" / "config" / "rules" / "old.yml"
    stale.parent.mkdir(parents=True)
    stale.write_text("groups: []\n")
    data = tmp_path / "prometheus" / "data" / "chunk"
    data.parent.mkdir(parents=True)
    data.write_text("kept")
    prometheus_command("prometheus", OBSERVED, state_dir=tmp_path)
    assert not stale.exists()
    assert data.read_text() == "kept"


def test_a_port_in_use_is_refused_with_the_ways_out() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        port = held.getsockname()[1]
        with pytest.raises(StopError, match=rf"port {port} \(Prometheus\) is in use by .*--ports"):
            require_unused(port)
    require_unused(port)
