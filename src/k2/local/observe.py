"""``k2 up --observe``: the ports in use in, the command of a Prometheus that watches them out.

Prometheus runs with the shipped configuration, unchanged; who is scraped is in its ``targets/``,
which are written here for this run.
"""

import asyncio
import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from k2.errors import StopError
from k2.ingestion.own_ports import is_free
from k2.local.ports import LOOPBACK, find_holder
from k2.local.processes import Command
from k2.local.services import Service

PORT = 9090
READY_DEADLINE_S = 20.0
ABSENT = (
    "Prometheus is not installed: --observe has nothing to run (Debian, Ubuntu: apt-get install "
    "prometheus; macOS: brew install prometheus)"
)
_SHIPPED = ("prometheus.yml", "rules")


@dataclass(frozen=True, slots=True)
class Observed:
    """Where the things to watch listen; port 0 is switched off."""

    stream_port: int
    archive_port: int
    prometheus_port: int

    def targets(self) -> Mapping[str, int]:
        """Return the port of each job of ``prometheus.yml``; no Alertmanager is run here."""
        return {
            "binance-stream": self.stream_port,
            "k2-archive": self.archive_port,
            "prometheus": self.prometheus_port,
            "alertmanager": 0,
        }


def find_prometheus() -> str | None:
    """Return the installed program, or None."""
    return shutil.which("prometheus")


def require_unused(port: int) -> None:
    """Refuse a port on which something listens: most likely a Prometheus of the user's own.

    Raises:
        StopError: One line that names the holder and the way out.
    """
    if not is_free(port):
        holder = find_holder(port) or "a process that belongs to another user"
        raise StopError(
            f"port {port} (Prometheus) is in use by {holder}; end it, leave out --observe, or let "
            "k2 choose ports with --ports auto"
        )


def shipped_config() -> Path:
    """Return the folder of ``prometheus.yml``: in the installed package, else in the checkout.

    Raises:
        StopError: If it is in neither.
    """
    package = Path(__file__).parents[1]
    for place in (
        package / "shipped" / "prometheus",
        package.parents[1] / "config" / "prometheus",
    ):
        if (place / "prometheus.yml").is_file():
            return place
    raise StopError("the Prometheus configuration is neither in the package nor in a checkout")


def prometheus_command(program: str, observed: Observed, *, state_dir: Path) -> Command:
    """Lay out configuration and data in ``state_dir/prometheus``; return what to run."""
    place = state_dir / "prometheus"
    config = place / "config"
    shutil.rmtree(config, ignore_errors=True)
    targets = config / "targets"
    targets.mkdir(parents=True)
    for name in _SHIPPED:
        source = shipped_config() / name
        if source.is_dir():
            shutil.copytree(source, config / name)
        else:
            shutil.copyfile(source, config / name)
    for job, port in observed.targets().items():
        # Every list is there: Prometheus complains of a file that is not.
        listed = [{"targets": [f"localhost:{port}"]}] if port else []
        (targets / f"{job}.yml").write_text(json.dumps(listed) + "\n", encoding="utf-8")
    return Command(
        "prometheus",
        (
            program,
            f"--config.file={config / 'prometheus.yml'}",
            f"--storage.tsdb.path={place / 'data'}",
            f"--web.listen-address={LOOPBACK}:{observed.prometheus_port}",
        ),
    )


async def wait_ready(service: Service, *, port: int) -> None:
    """Return once Prometheus answers queries.

    Raises:
        StopError: If it ends or does not answer in time; it says what Prometheus said.
    """
    deadline_s = time.monotonic() + READY_DEADLINE_S
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as session:
        while True:
            try:
                async with session.get(f"http://{LOOPBACK}:{port}/-/ready") as reply:
                    if reply.status == 200:
                        return
            except (aiohttp.ClientError, TimeoutError):
                pass
            if time.monotonic() > deadline_s or not service.running:
                raise StopError(f"Prometheus does not start:\n{service.said()}")
            await asyncio.sleep(0.05)
