"""A busy service costs a sample, a dead one the run."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from integration.harness import Process, wait_for
from k2.local.ports import pick_free
from soak.bench import SampleMissedError, Service, SoakEndedError


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Process]:
    waiting = [sys.executable, "-c", "import signal; print('up', flush=True); signal.pause()"]
    one = Process(waiting, dict(os.environ), tmp_path / "out").start()
    # Before it says so it may be no more than a fork: half a megabyte.
    wait_for(lambda: "up" in one.log(), what="the process to be up")
    yield one
    if one.running:
        one.kill()


def test_a_service_that_does_not_answer_costs_a_sample(process: Process) -> None:
    with pytest.raises(SampleMissedError, match="archive does not answer"):
        Service("archive", process, pick_free(1)[0]).scrape()


def test_a_service_that_ended_ends_the_run(process: Process) -> None:
    service = Service("archive", process, pick_free(1)[0])
    process.kill()
    with pytest.raises(SoakEndedError, match="archive ended with -9"):
        service.scrape()


def test_memory_and_cpu_are_those_of_the_service(process: Process) -> None:
    service = Service("capture", process, pick_free(1)[0])
    rss_mb, vms_mb = service.memory()
    assert 1 < rss_mb < vms_mb
    assert service.cpu_s() >= 0
