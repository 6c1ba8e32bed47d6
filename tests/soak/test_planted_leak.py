"""The shipped watch on real processes whose memory is known to leak, or not to (C16)."""

import json
import subprocess
import sys
from pathlib import Path


def ran(workload: str) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-m", "soak.workload", workload],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        check=True,
        timeout=240,
    )
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


def test_a_process_that_leaks_60_mb_an_hour_is_reported() -> None:
    found = ran("leak")
    assert found["last_mb"] - found["first_mb"] > 50
    assert found["score"] > 0.8


def test_a_process_that_leaks_a_little_more_than_a_day_allows_is_reported() -> None:
    found = ran("slow-leak")
    assert found["last_mb"] - found["first_mb"] < 25
    assert found["score"] > 0.8


def test_a_process_that_fragments_and_keeps_a_large_block_is_never_reported() -> None:
    found = ran("fragment")
    assert found["last_mb"] - found["first_mb"] > 60
    assert found["worst"] < 0.5
