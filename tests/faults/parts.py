"""The processes of a row that the integration tests do not have: proxies, instances, load."""

import json
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from threading import Event, Thread
from typing import Any, Self

import psutil  # type: ignore[import-untyped]  # ships no type information

from integration.harness import Process

MB = 1e6
SAMPLE_EVERY_S = 0.5


class Proxy:
    """A fault proxy in a process of its own; each order is answered before the next."""

    def __init__(self, target_port: int) -> None:
        self._popen = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "k2.simulator.proxy_command",
                "--target",
                f"127.0.0.1:{target_port}",
                "--json",
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.port = int(self._read()["port"])

    def order(self, do: str, **fields: object) -> dict[str, Any]:
        """Give one order; return the state after it."""
        assert self._popen.stdin is not None
        self._popen.stdin.write(json.dumps({"do": do, **fields}) + "\n")
        self._popen.stdin.flush()
        answer = self._read()
        assert answer["ok"], answer
        return answer

    def break_off(self) -> None:
        """Reset what is open and refuse what comes: the network is gone."""
        self.order("refuse")
        self.order("cut")

    def close(self) -> None:
        """End the process."""
        self._popen.kill()
        self._popen.wait(10)
        for pipe in (self._popen.stdin, self._popen.stdout):
            if pipe is not None:
                pipe.close()

    def _read(self) -> dict[str, Any]:
        assert self._popen.stdout is not None
        answer = json.loads(self._popen.stdout.readline())
        assert isinstance(answer, dict)
        return answer


@dataclass
class Instance:
    """One capture process and its ``/health``."""

    name: str
    process: Process
    health_port: int

    def health(self) -> dict[str, Any] | None:
        """Return what it says of itself; None while it does not answer."""
        try:
            with urllib.request.urlopen(
                f"http://127.0.0.1:{self.health_port}/health", timeout=2
            ) as reply:
                body = json.load(reply)
        except urllib.error.HTTPError as exc:
            body = json.load(exc)
        except (OSError, ValueError):
            return None
        assert isinstance(body, dict)
        return body

    def shards_written(self) -> set[int]:
        """Return the shards it writes now."""
        health = self.health() or {"shards": []}
        return {one["shard"] for one in health["shards"] if one["role"] == "writer"}

    @property
    def writes(self) -> bool:
        """Whether it writes any shard."""
        return bool(self.shards_written())

    @property
    def listens(self) -> bool:
        """Whether all its legs are live."""
        health = self.health()
        return bool(health and health["legs"] and all(leg["live"] for leg in health["legs"]))

    def last_ids(self) -> dict[str, int]:
        """Return each symbol's last id in the log, as this instance knows it."""
        health = self.health() or {"shards": []}
        return {
            symbol: last_id
            for shard in health["shards"]
            for symbol, last_id in shard["symbols"].items()
            if last_id is not None
        }

    def count(self, event: str) -> int:
        """Return how often its log says this."""
        return len(self.process.events(event))


class LoadSampler:
    """Memory and CPU of every instance, each half second, in a thread of its own."""

    def __init__(self, instances: Callable[[], Iterable[Instance]]) -> None:
        self._instances = instances
        self._samples: dict[str, list[tuple[float, float, float]]] = defaultdict(list)
        self._machine: list[float] = []
        self._stop = Event()
        self._thread = Thread(target=self._run, name="load sampler", daemon=True)

    def __enter__(self) -> Self:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        """End."""
        self._stop.set()
        self._thread.join(5)

    def rss_peak_mb(self) -> float:
        """Return the most any one instance used."""
        return max((s[1] for samples in self._samples.values() for s in samples), default=0.0)

    def rss_mb(self, *, since_s: float) -> Mapping[str, float]:
        """Return the median of each instance."""
        recent = {n: [s[1] for s in all_ if s[0] >= since_s] for n, all_ in self._samples.items()}
        return {name: statistics.median(values) for name, values in recent.items() if values}

    def cores(self, *, since_s: float) -> float:
        """Return the CPU all instances together used, in cores."""
        used = 0.0
        for samples in self._samples.values():
            recent = [s for s in samples if s[0] >= since_s]
            if len(recent) > 1:
                used += (recent[-1][2] - recent[0][2]) / (recent[-1][0] - recent[0][0])
        return used

    def machine_busy_percent(self) -> float:
        """Return how busy all cores of the machine were on average, whoever used them."""
        return statistics.mean(self._machine) if self._machine else 0.0

    def _run(self) -> None:
        psutil.cpu_percent()
        while not self._stop.wait(SAMPLE_EVERY_S):
            self._machine.append(psutil.cpu_percent())
            for instance in list(self._instances()):
                popen = instance.process.popen
                if popen is None or popen.poll() is not None:
                    continue
                try:
                    found = psutil.Process(popen.pid)
                    times = found.cpu_times()
                    sample = (
                        time.time(),
                        found.memory_info().rss / MB,
                        times.user + times.system,
                    )
                except psutil.Error:
                    continue
                self._samples[f"{instance.name}:{popen.pid}"].append(sample)
