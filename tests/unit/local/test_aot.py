import asyncio
import sys
from pathlib import Path

import pytest

from k2.local.aot import Exercise, aot_options, aot_path, train_missing
from k2.local.java import JavaProgram
from k2.local.processes import Child, Command, spawn

# Stands in for a JVM: writes its cache when it is told to end.
WRITES = """
import pathlib, signal, sys
def end(*_):
    pathlib.Path(sys.argv[1].partition("=")[2]).write_text("trained")
    raise SystemExit(143)
signal.signal(signal.SIGTERM, end)
print("up", flush=True)
while True:
    signal.pause()
"""
DIES = "raise SystemExit('no room')"


def program(name: str = "kafka") -> JavaProgram:
    return JavaProgram(name, Path("/java"), ("-Xmx1m",), ("-jar", "/a.jar"), (Path("/a.jar"),))


def exercise(code: str, *, runs: list[Path], name: str = "kafka") -> Exercise:
    async def run(scratch: Path, jvm_options: tuple[str, ...]) -> Child:
        runs.append(scratch)
        command = Command(name=name, argv=(sys.executable, "-c", code, *jvm_options))
        child = await spawn(command, state_dir=scratch)
        while child.return_code is None and b"up" not in child.log_path.read_bytes():  # noqa: ASYNC110
            await asyncio.sleep(0.01)  # another process writes the log: no event tells us
        return child

    return Exercise(program(name), run)


def test_a_cache_is_trained_once_and_then_used(tmp_path: Path) -> None:
    runs: list[Path] = []
    said: list[str] = []
    exercises = [exercise(WRITES, runs=runs), exercise(WRITES, runs=runs, name="registry")]

    assert aot_options(program(), cache_dir=tmp_path) == ()
    asyncio.run(train_missing(exercises, cache_dir=tmp_path, report=said.append))
    asyncio.run(train_missing(exercises, cache_dir=tmp_path, report=said.append))

    path = aot_path(program(), cache_dir=tmp_path)
    assert path.read_text() == "trained"
    assert aot_options(program(), cache_dir=tmp_path)[0] == f"-XX:AOTCache={path}"
    assert len(runs) == 2
    assert not any(scratch.exists() for scratch in runs)
    assert said[0].startswith("preparing fast starts of kafka and registry")


def test_a_failed_training_is_said_and_not_tried_at_every_start(tmp_path: Path) -> None:
    runs: list[Path] = []
    said: list[str] = []
    exercises = [exercise(DIES, runs=runs)]

    asyncio.run(train_missing(exercises, cache_dir=tmp_path, report=said.append))
    asyncio.run(train_missing(exercises, cache_dir=tmp_path, report=said.append))

    assert len(runs) == 1
    assert any("slower" in line and "no room" in line for line in said)
    assert aot_options(program(), cache_dir=tmp_path) == ()
    aot_path(program(), cache_dir=tmp_path).with_suffix(".failed").unlink()
    asyncio.run(train_missing(exercises, cache_dir=tmp_path, report=said.append))
    assert len(runs) == 2


@pytest.mark.parametrize(
    "changed",
    [
        JavaProgram("kafka", Path("/java"), ("-Xmx2m",), ("-jar", "/a.jar"), (Path("/a.jar"),)),
        JavaProgram("kafka", Path("/java"), ("-Xmx1m",), ("-jar", "/b.jar"), (Path("/a.jar"),)),
        JavaProgram("kafka", Path("/java"), ("-Xmx1m",), ("-jar", "/a.jar"), (Path("/b.jar"),)),
    ],
)
def test_whatever_the_jvm_compares_changes_the_name(tmp_path: Path, changed: JavaProgram) -> None:
    assert aot_path(changed, cache_dir=tmp_path) != aot_path(program(), cache_dir=tmp_path)
