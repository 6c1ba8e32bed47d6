"""The operator's shell beside a room: runs the runbook's commands as they are written.

Only addresses are put in: the room's services listen on ports of their own. Everything else (files,
topics, the ``k2`` on the path) is what the text says.
"""

import json
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from integration.harness import Process, Room, wait_for
from k2.ingestion import binance_client
from k2.local.ports import pick_free
from runbooks.shown import Shown, all_blocks

PREFIX = "market.crypto.trades"
SEEN_DEADLINE_S = 40.0
COMMAND_DEADLINE_S = 90.0

# The ports the runbooks name, and the setting that moves each.
_PORTS = {
    9091: "K2_METRICS_PORT",
    8001: "K2_HEALTH_PORT",
    9095: "K2_ARCHIVE_METRICS_PORT",
    8003: "K2_ARCHIVE_HEALTH_PORT",
}
# Those of a second instance, as the deployment's runbook starts one.
_SECOND = {9092: "K2_METRICS_PORT", 8002: "K2_HEALTH_PORT"}


class Desk:
    """Whoever is paged, with a shell in the room's folder."""

    def __init__(self, room: Room) -> None:
        """Give the room's services ports and a log file that the commands can be pointed at."""
        self.room = room
        ports = pick_free(len(_PORTS) + len(_SECOND))
        self._ports = dict(zip([*_PORTS, *_SECOND], map(str, ports), strict=True))
        room.extra |= {name: self._ports[port] for port, name in _PORTS.items()}
        room.extra["K2_LOG_FILE"] = str(self.log("binance_client"))

    def log(self, name: str) -> Path:
        """Return where a service logs, as it would when started in the room's folder."""
        return self.room.path / "logs" / f"{name}.log"

    def archive(self, **settings: str) -> Process:
        """Start the archive; it logs to a file of its own."""
        process = self.room.process("archive", [sys.executable, "-m", "k2", "archive"])
        process.environ |= {"K2_LOG_FILE": str(self.log("archive")), **settings}
        return process.start()

    def second(self, *flags: str, **settings: str) -> Process:
        """Start one more capture beside the first, on the ports of a second one."""
        process = self.room.process("second", [sys.executable, binance_client.__file__, *flags])
        process.environ |= {name: self._ports[port] for port, name in _SECOND.items()}
        process.environ |= {"K2_LOG_FILE": "off", **settings}
        return process.start()

    def health(self, port: int = 8001) -> dict[str, Any]:
        """Return what the instance on a documented port says of itself; empty without an answer."""
        try:
            with urllib.request.urlopen(self._url(port, "/health"), timeout=5) as reply:
                found = json.load(reply)
        except urllib.error.HTTPError as exc:
            found = json.load(exc)
        except OSError:
            return {}
        assert isinstance(found, dict)
        return found

    def samples(self, family: str, port: int = 9091) -> dict[str, float]:
        """Return the series of a family by their text, as /metrics shows them."""
        with urllib.request.urlopen(self._url(port, "/metrics"), timeout=5) as reply:
            lines = reply.read().decode().splitlines()
        pairs = [line.rpartition(" ") for line in lines if line.startswith(family)]
        return {name: float(value) for name, _, value in pairs}

    def sees(
        self,
        name: str,
        *,
        settings: Mapping[str, str] | None = None,
        deadline_s: float = SEEN_DEADLINE_S,
    ) -> None:
        """Wait until every command of a block prints what the block shows.

        Args:
            name: The block's id.
            settings: What the operator's environment has beside the room's.
            deadline_s: How long the cause may take to show.
        """
        for shown in all_blocks()[name]:
            self._wait(name, shown, settings or {}, deadline_s)

    def sees_health(self, status: str, port: int = 8001) -> None:
        """Wait until an instance says that it is so well."""
        wait_for(lambda: self.health(port).get("status") == status, what=f"/health to say {status}")

    def run(self, command: str, settings: Mapping[str, str] | None = None) -> str:
        """Run one command line; return all it printed."""
        done = subprocess.run(
            ["bash", "-c", self._addressed(command)],
            env=self._environ() | dict(settings or {}),
            cwd=self.room.path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=COMMAND_DEADLINE_S,
            check=False,
        )
        return done.stdout

    def _wait(
        self, name: str, shown: Shown, settings: Mapping[str, str], deadline_s: float
    ) -> None:
        end_s = time.monotonic() + deadline_s
        while True:
            output = self.run(shown.command, settings)
            missing = shown.missing_in(output.replace(self.room.prefix, PREFIX))
            if missing is None:
                return
            assert time.monotonic() < end_s, (
                f"{name}: `{shown.command}` does not show\n  {missing}\nbut\n{output}"
            )
            time.sleep(0.2)

    def _environ(self) -> dict[str, str]:
        environ = self.room.environ()
        programs = Path(sys.executable).parent
        return environ | {"PATH": f"{programs}:{os.environ['PATH']}", "COLUMNS": "200"}

    def _url(self, port: int, path: str) -> str:
        return f"http://127.0.0.1:{self._ports[port]}{path}"

    def _addressed(self, command: str) -> str:
        ports = {**self._ports, 8081: str(self.room.stack.address.registry_port)}
        text = re.sub(
            r"\blocalhost:(\d+)\b",
            lambda found: f"localhost:{ports.get(int(found[1]), found[1])}",
            command,
        )
        return text.replace(PREFIX, self.room.prefix)
