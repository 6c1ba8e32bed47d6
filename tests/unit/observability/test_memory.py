import asyncio
from collections.abc import Iterator, MutableMapping
from typing import Any

import pytest
from structlog.testing import capture_logs

from k2.observability.leak import MB
from k2.observability.memory import MemoryUse, MemoryWatch, own_memory
from simulation.world.virtual_time import VirtualTimeLoop

ALARMING = ("error", "exception", "critical", "invalid", "parse")
"""What the runbooks grep for (contract R090)."""


@pytest.fixture
def loop() -> Iterator[VirtualTimeLoop]:
    loop = VirtualTimeLoop()
    yield loop
    loop.close()


def watch_for(
    loop: VirtualTimeLoop, hours: float, *, mb_per_h: float
) -> tuple[MemoryWatch, list[MutableMapping[str, Any]]]:
    """Run a watch over a process that grows by so much."""

    def read() -> MemoryUse:
        rss_bytes = int(MB * (100 + mb_per_h * loop.time() / 3600))
        return MemoryUse(rss_bytes, 4 * rss_bytes)

    async def run() -> MemoryWatch:
        watch = MemoryWatch(read=read, monotonic_s=loop.time)
        running = asyncio.create_task(watch.run())
        await asyncio.sleep(hours * 3600 - 1)
        running.cancel()
        return watch

    with capture_logs() as logs:
        return loop.run_until_complete(run()), logs


def test_a_line_tells_memory_and_score_each_five_minutes(loop: VirtualTimeLoop) -> None:
    _watch, logs = watch_for(loop, 1, mb_per_h=20)
    assert len(logs) == 12
    assert logs[0] == {"event": "memory", "log_level": "info", "rss_mb": 100, "leak_score": 0}
    assert logs[-1]["rss_mb"] == pytest.approx(100 + 20 * 55 / 60, abs=0.1)
    assert logs[-1]["leak_score"] == pytest.approx(0.625, abs=0.01)


def test_a_healthy_line_has_none_of_the_words_that_alarm(loop: VirtualTimeLoop) -> None:
    _watch, logs = watch_for(loop, 1, mb_per_h=0)
    assert not [word for word in ALARMING if word in str(logs).lower()]


def test_a_leaking_process_is_told_by_its_score(loop: VirtualTimeLoop) -> None:
    watch, _logs = watch_for(loop, 1, mb_per_h=60)
    assert watch.leak_score > 0.8
    assert watch.use().rss_bytes == pytest.approx(160 * MB, rel=0.01)
    assert watch.use().vms_bytes == pytest.approx(640 * MB, rel=0.01)


def test_a_steady_process_scores_nothing(loop: VirtualTimeLoop) -> None:
    watch, _logs = watch_for(loop, 24, mb_per_h=0)
    assert watch.leak_score == 0


def test_both_windows_stay_bounded(loop: VirtualTimeLoop) -> None:
    watch, _logs = watch_for(loop, 24 * 3, mb_per_h=0.1)
    history = watch._history
    assert (len(history._hour), len(history._day), len(history._thinned)) <= (120, 120, 24)


def test_the_operating_system_is_asked_for_this_process() -> None:
    use = own_memory()
    assert 5 * MB < use.rss_bytes < use.vms_bytes


def test_a_large_allocation_is_seen() -> None:
    before = own_memory().rss_bytes
    block = bytearray(64 * MB)
    assert own_memory().rss_bytes - before > 50 * MB
    del block
