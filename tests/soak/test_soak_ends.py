"""However a soak ends, it leaves a report that says so."""

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil  # type: ignore[import-untyped]  # ships no type information
import pytest

from k2.local.background import BackgroundStack
from k2.local.stack import Stack
from soak.forms import Form
from soak.profile import PROFILE_NAME, Profile, Sample
from soak.run import run_soak

pytestmark = [pytest.mark.soak, pytest.mark.timeout(300)]

TINY = Form("tiny", 1, 8, 0.5, 100, 3, 400, 10, 100)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BackgroundStack]:
    with BackgroundStack(
        Stack(state_dir=tmp_path_factory.mktemp("stack"), kafka_port=None, registry_port=None)
    ) as running:
        yield running


@pytest.fixture
def soaked(stack: BackgroundStack, tmp_path: Path) -> Callable[..., Profile]:
    def run(form: Form = TINY, *, do_at_s: float = 1e9, do: Callable[[], None]) -> Profile:
        def say(sample: Sample) -> None:
            if sample.elapsed_s >= do_at_s:
                do()

        room = tmp_path / "room"
        room.mkdir()
        profile = run_soak(form, stack, room, tmp_path / "out", prefix=tmp_path.name, say=say)
        written = json.loads((tmp_path / "out" / PROFILE_NAME).read_text(encoding="utf-8"))
        assert written["test_metadata"]["ended"] == profile.test_metadata.ended
        assert "Not kept" in (tmp_path / "out" / "tiny.html").read_text(encoding="utf-8")
        return profile

    return run


@pytest.fixture
def listens_to_ctrl_c() -> Iterator[None]:
    """What a shell runs in the background has SIGINT ignored, and Python leaves it so."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def not_kept(profile: Profile) -> set[str]:
    return {check.what for check in profile.test_metadata.checks if not check.kept}


def kill_capture() -> None:
    for child in psutil.Process().children():
        if any("binance_client" in word for word in child.cmdline()):
            child.kill()


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_a_capture_that_dies_ends_the_run_and_is_named(soaked: Callable[..., Profile]) -> None:
    profile = soaked(do_at_s=3, do=kill_capture)
    assert profile.test_metadata.ended == "capture ended with -9"
    assert {"the run", "samples"} <= not_kept(profile)
    assert "k2 verify" not in not_kept(profile)


def test_a_capture_over_the_limit_ends_the_run_at_once(soaked: Callable[..., Profile]) -> None:
    profile = soaked(TINY._replace(rss_max_mb=20), do=lambda: None)
    assert "more than 20" in profile.test_metadata.ended
    assert len(profile.memory_samples) <= 1


@pytest.mark.usefixtures("listens_to_ctrl_c")
def test_an_interrupted_run_reports_what_was(soaked: Callable[..., Profile]) -> None:
    profile = soaked(do_at_s=4, do=interrupt)
    assert profile.test_metadata.ended == "interrupted"
    assert profile.summary_statistics.total_messages > 100
    assert {"the run", "measured time, s", "samples"} <= not_kept(profile)
    assert "k2 verify" not in not_kept(profile)
