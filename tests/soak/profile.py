"""The soak's record: ``binance_soak_memory_profile.json`` in the shape of contract R143."""

from collections.abc import Iterable
from pathlib import Path

import msgspec

from k2.observability.leak import HOUR, MB, MemorySample, score_of_run

PROFILE_NAME = "binance_soak_memory_profile.json"


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """Both services at one time; those without a prefix are the capture's."""

    timestamp: str
    elapsed_s: float
    """Since the measured time began; below 0 in the warm-up."""
    rss_mb: float
    vms_mb: float
    archive_rss_mb: float
    archive_vms_mb: float
    messages: int
    """Trades received since the start of the capture."""
    message_rate: float
    """A second, since the sample before."""
    latency_p50_ms: float | None
    """Socket to committed in Kafka, since the sample before."""
    latency_p99_ms: float | None
    rotations: int
    reconnections: int
    rows_archived: int
    cores: float
    """CPU of capture and archive, since the sample before."""
    archive_cores: float


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """The measured time in five figures."""

    initial_rss_mb: float
    final_rss_mb: float
    memory_growth_mb: float
    total_messages: int
    avg_message_rate: float


class Check(msgspec.Struct, frozen=True):
    """One bound and what was found."""

    what: str
    bound: str
    found: str
    kept: bool


class Metadata(msgspec.Struct, kw_only=True):
    """Of what the figures are."""

    form: str
    started: str
    duration_s: float
    duration_wanted_s: float
    warm_up_s: float
    sample_every_s: float
    samples_wanted: int
    trades_per_s: float
    connection_age_max_s: float
    symbols: list[str]
    machine: str
    versions: dict[str, str]
    ended: str
    """How the run ended: ``completed``, or why it did not."""
    latency_ms: dict[str, float]
    """Socket to committed in Kafka over the measured time: p50, p95, p99."""
    alarming_lines: list[str]
    """Those a runbook's grep would find, the first 20."""
    checks: list[Check]
    warm_up_samples: list[Sample]


class Profile(msgspec.Struct, frozen=True):
    """The whole file."""

    test_metadata: Metadata
    summary_statistics: Summary
    memory_samples: list[Sample]

    @property
    def kept(self) -> bool:
        """Whether the run was complete and everything within its bounds."""
        return bool(self.test_metadata.checks) and all(
            check.kept for check in self.test_metadata.checks
        )


def summary(samples: list[Sample]) -> Summary:
    """Sum up the measured time; zeros before its first sample."""
    if not samples:
        return Summary(
            initial_rss_mb=0.0,
            final_rss_mb=0.0,
            memory_growth_mb=0.0,
            total_messages=0,
            avg_message_rate=0.0,
        )
    first, last = samples[0], samples[-1]
    messages, lasted_s = last.messages - first.messages, last.elapsed_s - first.elapsed_s
    return Summary(
        initial_rss_mb=first.rss_mb,
        final_rss_mb=last.rss_mb,
        memory_growth_mb=round(last.rss_mb - first.rss_mb, 3),
        total_messages=messages,
        avg_message_rate=round(messages / lasted_s, 2) if lasted_s else 0.0,
    )


def leak_scores(samples: Iterable[Sample], *, sample_every_s: float) -> tuple[float, float]:
    """Return what the shipped score says of capture and archive, warm-up left out by it.

    A form that samples faster than the service is judged as if it had taken its time: growth over
    so many samples is what it compares.
    """
    slower = HOUR.sample_every_s / sample_every_s
    times = [(s.elapsed_s * slower, s) for s in samples]
    capture = score_of_run(MemorySample(time_s, s.rss_mb * MB) for time_s, s in times)
    archive = score_of_run(MemorySample(time_s, s.archive_rss_mb * MB) for time_s, s in times)
    return capture, archive


def write_profile(folder: Path, profile: Profile) -> Path:
    """Write it whole: a run that is killed leaves the last one."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / PROFILE_NAME
    text = msgspec.json.format(msgspec.json.encode(profile), indent=1)
    replace(path, text)
    return path


def replace(path: Path, content: bytes) -> None:
    """Write a file at once or not at all."""
    beside = path.with_name(path.name + ".new")
    beside.write_bytes(content)
    beside.replace(path)
