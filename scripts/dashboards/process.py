"""What every k2 service says of its own process."""

from scripts.dashboards.panels import RED, YELLOW, Panel, Query, Told, lines
from scripts.dashboards.units import BYTES, COUNT, SECONDS, SHARE

MEMORY_HIGH_BYTES = 400 * 1024**2


def of(service: str) -> tuple[Panel, ...]:
    """Return the panels of one service's processes; ``service`` is its selector."""
    return (
        lines(
            "Memory",
            Query(f"process_memory_rss_bytes{service}", legend="{{instance}}"),
            told=Told(
                "Resident memory. About 100 MiB are usual for a capture, 200 while Kafka is away.",
                action="Above 400 MiB: see the leak score, and what waits.",
                runbook="memory",
            ),
            unit=BYTES,
            limits={MEMORY_HIGH_BYTES: RED},
            width=6,
        ),
        lines(
            "Leak score",
            Query(f"memory_leak_detection_score{service}", legend="{{instance}}"),
            told=Told(
                "0 to 1: how steadily and how fast memory grows. 0 is usual.",
                action="Above 0.8 for 15 minutes it leaks: hand over to another instance, then "
                "look.",
                runbook="memory",
            ),
            unit=COUNT,
            limits={0.5: YELLOW, 0.8: RED},
            width=4,
        ),
        lines(
            "Processor",
            Query(f"rate(process_cpu_seconds_total{service}[5m])", legend="{{instance}}"),
            told=Told(
                "Share of one core. One event loop cannot use more than one.",
                action="Near 1: latency follows. Spread the symbols over more shards.",
                runbook="high-latency",
            ),
            unit=SHARE,
            width=4,
        ),
        lines(
            "Schemas kept ready",
            Query(f"serializer_cache_size{service}", legend="{{component_type}} {{instance}}"),
            Query(
                f"increase(serializer_cache_evictions_total{service}[1h])",
                legend="made room in an hour, {{component_type}} {{instance}}",
            ),
            told=Told(
                "The cache of encoders and decoders. A handful, and it stays so.",
                action="Evictions: schemas come and go; somebody registers new ones all the time.",
                runbook="memory",
            ),
            unit=COUNT,
            width=6,
        ),
        lines(
            "Up for",
            Query(f"time() - process_start_time_seconds{service}", legend="{{instance}}"),
            told=Told(
                "Since the process began. A line that falls to 0 is a restart.",
                action="A restart nobody asked for: its log ends with the reason and the exit "
                "code.",
                runbook="process-down",
            ),
            unit=SECONDS,
            width=4,
        ),
    )
