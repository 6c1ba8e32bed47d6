"""One soak from start to verdict: warm-up, measured time, drain, proof, report."""

import platform
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import psutil  # type: ignore[import-untyped]  # ships no type information

from integration.harness import Room
from k2 import __version__
from k2.local.background import BackgroundStack
from k2.local.jars import read_lock
from soak.bench import Reading, SampleMissedError, SoakBench, SoakEndedError, latency_ms
from soak.forms import Form
from soak.judging import Outcome, judge
from soak.profile import Metadata, Profile, Sample, leak_scores, summary, write_profile
from soak.report import write_report

SYMBOLS = ("BTCUSDT", "ETHUSDT", "BNBUSDT")
SAMPLES_PER_WRITE = 10
RUNNING = "running"
INTERRUPTED = "interrupted"
COMPLETED = "completed"


def run_soak(
    form: Form,
    stack: BackgroundStack,
    path: Path,
    out: Path,
    *,
    prefix: str,
    say: Callable[[Sample], None],
) -> Profile:
    """Run one form; leave its record and report in ``out``, however it ends.

    Args:
        form: How long, and what it must keep.
        stack: Kafka and registry.
        path: For the lake, the exchange and the logs.
        out: Where record and report go; both are written anew every few samples.
        prefix: Of the topics.
        say: Told each sample.
    """
    bench = SoakBench(form, Room(stack, path, prefix, symbols=SYMBOLS))
    soak = _Soak(form, bench, out, say)
    try:
        ended = soak.measure()
        return soak.finish(ended)
    finally:
        bench.close()


class _Soak:
    def __init__(
        self, form: Form, bench: SoakBench, out: Path, say: Callable[[Sample], None]
    ) -> None:
        self._form = form
        self._bench = bench
        self._out = out
        self._say = say
        self._samples: list[Sample] = []
        self._first: Reading | None = None
        self._last: Reading | None = None
        self._metadata = _metadata(form, list(bench.room.symbols))

    def measure(self) -> str:
        """Sample until the time is over; return how that ended."""
        every_s = self._form.sample_every_s
        began_s = time.monotonic() + self._form.warm_up_s
        number = -int(self._form.warm_up_s / every_s)
        try:
            while number < self._form.samples_expected:
                time.sleep(max(0.0, began_s + number * every_s - time.monotonic()))
                with suppress(SampleMissedError):
                    self._take(began_s)
                # Where one look took longer than the interval, those it missed stay missed.
                number = max(number + 1, int((time.monotonic() - began_s) // every_s) + 1)
        except SoakEndedError as exc:
            return str(exc)
        except KeyboardInterrupt:
            return INTERRUPTED
        return COMPLETED

    def finish(self, ended: str) -> Profile:
        """Drain, end, prove and judge; write the last record and report."""
        schema_errors = self._bench.schema_errors(self._last.capture) if self._last else 0
        newest = None
        try:
            if ended == COMPLETED:
                newest = self._bench.stop()
            else:
                self._bench.end()
        except (SoakEndedError, AssertionError, OSError, subprocess.TimeoutExpired) as exc:
            ended = f"{ended}, then: {exc}"
        proof, proved = self._bench.verify(newest)
        scores = leak_scores(
            [*self._metadata.warm_up_samples, *self._samples],
            sample_every_s=self._form.sample_every_s,
        )
        lines = self._bench.alarming_lines()
        outcome = Outcome(ended, schema_errors, lines, proof, proved, scores)
        self._metadata.ended = ended
        self._metadata.alarming_lines = lines[:20]
        self._metadata.checks = judge(self._form, self._samples, outcome)
        return self._write()

    def _take(self, began_s: float) -> None:
        now_s = time.monotonic()
        reading = self._bench.read(now_s=now_s, began_s=began_s, before=self._last)
        sample, self._last = reading.sample, reading
        if sample.elapsed_s < 0:
            self._metadata.warm_up_samples.append(sample)
        else:
            self._first = self._first or reading
            self._samples.append(sample)
        self._say(sample)
        for name, rss_mb in (("capture", sample.rss_mb), ("archive", sample.archive_rss_mb)):
            if rss_mb > self._form.rss_max_mb:
                raise SoakEndedError(
                    f"{name} uses {rss_mb:.0f} MB, more than {self._form.rss_max_mb:g}"
                )
        if len(self._samples) % SAMPLES_PER_WRITE == 1:
            self._write()

    def _write(self) -> Profile:
        if self._first is not None and self._last is not None:
            found = latency_ms(self._first.capture, self._last.capture, (0.5, 0.95, 0.99))
            self._metadata.latency_ms = {
                name: value
                for name, value in zip(("p50", "p95", "p99"), found, strict=True)
                if value is not None
            }
        self._metadata.duration_s = self._samples[-1].elapsed_s if self._samples else 0.0
        profile = Profile(self._metadata, summary(self._samples), self._samples)
        write_profile(self._out, profile)
        write_report(self._out / f"{self._form.name}.html", profile)
        return profile


def _metadata(form: Form, symbols: list[str]) -> Metadata:
    kafka = next(jar.version for jar in read_lock().jars if jar.name.startswith("kafka_"))
    return Metadata(
        form=form.name,
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        duration_s=0.0,
        duration_wanted_s=form.duration_s,
        warm_up_s=form.warm_up_s,
        sample_every_s=form.sample_every_s,
        samples_wanted=form.samples_expected,
        trades_per_s=form.trades_per_s,
        connection_age_max_s=form.connection_age_max_s,
        symbols=symbols,
        machine=f"{psutil.cpu_count()} cores, {psutil.virtual_memory().total / 1e9:.0f} GB, "
        f"{platform.system()}",
        versions={
            "k2": __version__,
            "Python": platform.python_version(),
            "Kafka": kafka,
            "confluent-kafka": version("confluent-kafka"),
            "pyiceberg": version("pyiceberg"),
        },
        ended=RUNNING,
        latency_ms={},
        alarming_lines=[],
        checks=[],
        warm_up_samples=[],
    )
