"""What a soak runs: an exchange in a box, the capture, the archive, and a look at all of them."""

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import psutil  # type: ignore[import-untyped]  # ships no type information

from integration.harness import Process, Room, wait_for
from k2.local.ports import pick_free
from k2.observability.leak import MB
from soak.forms import Form
from soak.profile import Sample
from soak.scrape import Scrape, quantile_s, scrape

START_DEADLINE_S = 90.0
DRAIN_DEADLINE_S = 600.0
VERIFY_DEADLINE_S = 1_800.0
LATENCY = "binance_message_latency_seconds"
ALARMING = re.compile("error|exception|critical", re.IGNORECASE)
"""What the runbooks grep for in the log of a healthy service (contract R090)."""


class SoakEndedError(Exception):
    """The run cannot go on; the message is what its report says."""


class SampleMissedError(Exception):
    """A service was too busy to answer; the bound on samples judges how often that may be."""


class Reading(NamedTuple):
    """One look at both services."""

    sample: Sample
    at_s: float
    capture: Scrape
    cpu_s: tuple[float, float]


class Service:
    """One of the two services under test."""

    def __init__(self, name: str, process: Process, port: int) -> None:
        self.name = name
        self.process = process
        self.port = port
        assert process.popen is not None
        self._system = psutil.Process(process.popen.pid)

    def scrape(self) -> Scrape:
        """Return its metrics.

        Raises:
            SoakEndedError: If it has ended.
            SampleMissedError: If it does not answer now.
        """
        if not self.process.running:
            assert self.process.popen is not None
            raise SoakEndedError(f"{self.name} ended with {self.process.popen.returncode}")
        found = scrape(self.port)
        if found is None:
            raise SampleMissedError(f"{self.name} does not answer /metrics")
        return found

    def memory(self) -> tuple[float, float]:
        """Return resident memory and address space, in MB."""
        found = self._system.memory_info()
        return round(found.rss / MB, 3), round(found.vms / MB, 3)

    def cpu_s(self) -> float:
        """Return the CPU time used since it started."""
        found = self._system.cpu_times()
        return float(found.user + found.system)


class SoakBench:
    """The services of one soak, in a room of their own."""

    def __init__(self, form: Form, room: Room) -> None:
        self.room = room
        ports = pick_free(2)
        self.room.extra = {
            "K2_METRICS_PORT": str(ports[0]),
            "K2_ARCHIVE_METRICS_PORT": str(ports[1]),
            "BINANCE_CONNECTION_AGE_MAX": f"{form.connection_age_max_s:g}",
            "K2_FLUSH_AGE": "2",  # as shipped: the room's own would make four times the commits
        }
        self.exchange = self.room.exchange("--rate", f"{form.trades_per_s:g}")
        self.capture = Service("capture", self.room.stream(), ports[0])
        self.archive = Service("archive", self.room.archive(), ports[1])
        wait_for(
            lambda: all(scrape(port) for port in ports),
            what="both services to answer /metrics",
            deadline_s=START_DEADLINE_S,
        )
        self.room.wait_until_archiving()

    def read(self, *, now_s: float, began_s: float, before: Reading | None) -> Reading:
        """Look at both services; rates and latency are those since the reading before.

        Raises:
            SoakEndedError: If one is gone.
            SampleMissedError: If one does not answer now.
        """
        if not self.exchange.running:
            raise SoakEndedError("the exchange ended")
        scraped, archived = self.capture.scrape(), self.archive.scrape()
        cpu_s = self.capture.cpu_s(), self.archive.cpu_s()
        (rss_mb, vms_mb), (archive_rss_mb, archive_vms_mb) = (
            self.capture.memory(),
            self.archive.memory(),
        )
        messages = int(scraped.value("binance_messages_received_total"))
        rate = cores = archive_cores = 0.0
        p50_ms = p99_ms = None
        if before is not None:
            since_s = now_s - before.at_s
            rate = (messages - before.sample.messages) / since_s
            cores, archive_cores = (
                (now - then) / since_s for now, then in zip(cpu_s, before.cpu_s, strict=True)
            )
            p50_ms, p99_ms = latency_ms(before.capture, scraped, (0.5, 0.99))
        sample = Sample(
            timestamp=datetime.now(UTC).isoformat(timespec="milliseconds"),
            elapsed_s=round(now_s - began_s, 3),
            rss_mb=rss_mb,
            vms_mb=vms_mb,
            archive_rss_mb=archive_rss_mb,
            archive_vms_mb=archive_vms_mb,
            messages=messages,
            message_rate=round(rate, 2),
            latency_p50_ms=p50_ms,
            latency_p99_ms=p99_ms,
            rotations=int(scraped.value("binance_connection_rotations_total")),
            reconnections=int(scraped.value("binance_reconnections_total")),
            rows_archived=int(archived.value("iceberg_rows_written_total")),
            cores=round(cores, 4),
            archive_cores=round(archive_cores, 4),
        )
        return Reading(sample, now_s, scraped, cpu_s)

    def schema_errors(self, last: Scrape) -> int:
        """Count what the capture refused, and dead letters, the archive's among them."""
        refused = last.value("binance_message_errors_total")
        letters = sum(
            len(path.read_bytes().splitlines())
            for path in self.room.dead_letter_dir.rglob("*")
            if path.is_file()
        )
        return int(refused) + letters

    def alarming_lines(self) -> list[str]:
        """Return the log lines of both that a runbook's grep would find."""
        return [
            line
            for service in (self.capture, self.archive)
            for line in service.process.log().splitlines()
            if ALARMING.search(line)
        ]

    def stop(self) -> dict[str, int]:
        """Freeze the tape, let everything reach the lake, end the services; return newest ids.

        Raises:
            SoakEndedError: If the lake does not get there, or a service does not end well.
        """
        newest = self.room.stop_trading()
        wait_for(
            lambda: self._archived(newest),
            what=f"the lake to reach {newest}",
            deadline_s=DRAIN_DEADLINE_S,
        )
        self.end()
        return newest

    def end(self) -> None:
        """End both services as an operator does.

        Raises:
            SoakEndedError: If one does not end with 0.
        """
        for service in (self.capture, self.archive):
            if service.process.running and (code := service.process.end()):
                raise SoakEndedError(f"{service.name} ended with {code} at SIGTERM")

    def verify(self, newest: dict[str, int] | None) -> tuple[str, bool]:
        """Run ``k2 verify``; say what it found, and whether that is everything.

        Args:
            newest: The ids the lake must have reached; None asks only for completeness.
        """
        done = subprocess.run(
            [sys.executable, "-m", "k2", "verify", "--json"],
            env=self.room.environ(),
            capture_output=True,
            text=True,
            check=False,
            timeout=VERIFY_DEADLINE_S,
        )
        if done.returncode not in (0, 1) or not done.stdout.startswith("{"):
            return f"exit {done.returncode}: {done.stderr.strip()[-200:]}", False
        symbols: list[dict[str, Any]] = json.loads(done.stdout)["symbols"]
        rows = sum(one["rows"] for one in symbols)
        last = {one["symbol"]: one["last_id"] for one in symbols}
        if done.returncode:
            return f"NOT complete, {rows:,} rows", False
        if declared := sum(one["declared"] for one in symbols):
            return f"complete, but {declared} ids are declared missing", False
        if newest is not None and last != newest:
            return f"complete, but ends at {last}, not {newest}", False
        return f"complete, {rows:,} rows", True

    def close(self) -> None:
        """Kill what still runs."""
        for process in self.room.processes:
            if process.running:
                process.kill()

    def _archived(self, newest: dict[str, int]) -> bool:
        last = self.room.lake_last_ids()
        return all(last.get(symbol, -1) >= newest[symbol] for symbol in newest)


def latency_ms(
    earlier: Scrape | None, later: Scrape, shares: Sequence[float]
) -> list[float | None]:
    """Return quantiles of receive to committed between two scrapes."""
    before = earlier.buckets.get(LATENCY, {}) if earlier else {}
    found = [quantile_s(before, later.buckets.get(LATENCY, {0.0: 0.0}), s) for s in shares]
    return [None if value is None else round(value * 1000, 2) for value in found]
