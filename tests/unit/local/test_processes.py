import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Event
from time import monotonic

import psutil  # type: ignore[import-untyped]  # ships no type information
import pytest

from k2.errors import StopError
from k2.local.processes import (
    Command,
    end_leftover,
    find_leftover,
    process_identity,
    spawn,
)

WAIT_FOR_EVER = "import signal; print('up', flush=True); signal.pause()"
IGNORE_TERM = "import signal; signal.signal(15, signal.SIG_IGN); " + WAIT_FOR_EVER


def python(code: str, *, name: str = "child") -> Command:
    return Command(name=name, argv=(sys.executable, "-c", code))


def wait_until(condition: Callable[[], bool], *, deadline_s: float = 10.0) -> None:
    end_s = monotonic() + deadline_s
    ticker = Event()
    while not condition():
        assert monotonic() < end_s, "condition not met in time"
        ticker.wait(0.01)


def is_gone(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def says_up(log: Path) -> bool:
    return log.exists() and b"up" in log.read_bytes()


def test_a_child_writes_its_log_and_ends_with_its_code(tmp_path: Path) -> None:
    async def run() -> tuple[int, str]:
        child = await spawn(python("print('one\\ntwo'); raise SystemExit(3)"), state_dir=tmp_path)
        return await child.wait(), child.log_tail(lines=1)

    assert asyncio.run(run()) == (3, "two")
    assert list((tmp_path / "pids").iterdir()) == []


def test_a_program_that_does_not_exist_is_named(tmp_path: Path) -> None:
    command = Command(name="broker", argv=("/no/such/java",))

    with pytest.raises(StopError, match=r"broker.*/no/such/java"):
        asyncio.run(spawn(command, state_dir=tmp_path))


def test_environment_and_directory_are_the_ones_asked_for(tmp_path: Path) -> None:
    async def run() -> str:
        command = Command(
            name="child",
            argv=(sys.executable, "-c", "import os; print(os.environ['K'], os.getcwd())"),
            environ={"K": "v"},
            cwd=tmp_path,
        )
        child = await spawn(command, state_dir=tmp_path / "state")
        await child.wait()
        return child.log_tail()

    assert asyncio.run(run()) == f"v {tmp_path}"


def test_a_child_that_listens_is_terminated(tmp_path: Path) -> None:
    async def run() -> int:
        child = await spawn(python(WAIT_FOR_EVER), state_dir=tmp_path)
        return await child.terminate(deadline_s=10.0)

    assert asyncio.run(run()) == -signal.SIGTERM


def test_a_child_that_does_not_listen_is_killed_at_the_deadline(tmp_path: Path) -> None:
    async def run() -> int:
        child = await spawn(python(IGNORE_TERM), state_dir=tmp_path)
        await asyncio.to_thread(wait_until, lambda: says_up(child.log_path))
        return await child.terminate(deadline_s=0.05)

    assert asyncio.run(run()) == -signal.SIGKILL


def test_a_stopped_child_is_woken_to_end(tmp_path: Path) -> None:
    async def run() -> int:
        child = await spawn(python(WAIT_FOR_EVER), state_dir=tmp_path)
        child.signal(signal.SIGSTOP)
        return await child.terminate(deadline_s=10.0)

    assert asyncio.run(run()) == -signal.SIGTERM


def test_terminating_twice_or_after_the_end_is_harmless(tmp_path: Path) -> None:
    async def run() -> tuple[int, int]:
        child = await spawn(python("raise SystemExit(0)"), state_dir=tmp_path)
        await child.wait()
        child.signal(signal.SIGKILL)
        return await child.terminate(deadline_s=1.0), await child.terminate(deadline_s=1.0)

    assert asyncio.run(run()) == (0, 0)


def test_ctrl_c_at_the_terminal_does_not_reach_a_child(tmp_path: Path) -> None:
    async def run() -> tuple[int, int]:
        child = await spawn(python(WAIT_FOR_EVER), state_dir=tmp_path)
        group = os.getpgid(child.pid)
        await child.terminate(deadline_s=10.0)
        return group, child.pid

    group, pid = asyncio.run(run())
    assert group == pid != os.getpgid(0)


def test_a_long_log_is_set_aside(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "child.log"
    log.parent.mkdir()
    with log.open("wb") as file:
        file.truncate(21_000_000)

    async def run() -> str:
        child = await spawn(python("print('new')"), state_dir=tmp_path)
        await child.wait()
        return child.log_tail()

    assert asyncio.run(run()) == "new"
    assert (tmp_path / "logs" / "child.log.1").stat().st_size == 21_000_000


# A parent that starts a child, says its pid and is then killed, as a `kill -9` of `k2 up` does.
PARENT = """
import asyncio, signal, sys
from pathlib import Path
from k2.local.processes import Command, spawn

async def main():
    code = sys.argv[2]
    command = Command(name="child", argv=(sys.executable, "-c", code))
    child = await spawn(command, state_dir=Path(sys.argv[1]))
    while b"up" not in child.log_path.read_bytes():
        await asyncio.sleep(0.01)
    print(child.pid, flush=True)
    signal.pause()

asyncio.run(main())
"""


def child_of_a_killed_parent(state_dir: Path, code: str) -> int:
    source = Path(__file__).parents[3] / "src"
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(state_dir), code],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(source)},
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.kill()
    return pid


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's signal exists on Linux only")
def test_a_child_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    pid = child_of_a_killed_parent(tmp_path, WAIT_FOR_EVER)

    try:
        wait_until(lambda: is_gone(pid))
    finally:
        if not is_gone(pid):
            os.kill(pid, signal.SIGKILL)


def test_a_leftover_of_a_killed_parent_is_found_and_ended(tmp_path: Path) -> None:
    pid = child_of_a_killed_parent(tmp_path, IGNORE_TERM)
    leftover = find_leftover("child", state_dir=tmp_path)

    ended = asyncio.run(end_leftover("child", state_dir=tmp_path, deadline_s=0.05))

    assert leftover is not None
    assert leftover.pid == ended == pid
    assert is_gone(pid)
    assert find_leftover("child", state_dir=tmp_path) is None
    assert asyncio.run(end_leftover("child", state_dir=tmp_path, deadline_s=1.0)) is None


def test_a_process_of_the_folder_that_was_copied_is_left_alone(tmp_path: Path) -> None:
    original, copy, moved = tmp_path / "var", tmp_path / "backup", tmp_path / "moved"

    async def run() -> tuple[int | None, int | None, int | None]:
        child = await spawn(python(WAIT_FOR_EVER), state_dir=original)
        shutil.copytree(original, copy)
        ended = await end_leftover("child", state_dir=copy, deadline_s=10.0)
        code = child.return_code
        original.rename(moved)
        ended_later = await end_leftover("child", state_dir=moved, deadline_s=10.0)
        await child.wait()
        return ended, code, None if ended_later is None else ended_later - child.pid

    assert asyncio.run(run()) == (None, None, 0)


def test_a_leftover_of_a_version_that_did_not_note_the_folder_is_found(tmp_path: Path) -> None:
    async def run() -> bool:
        child = await spawn(python(WAIT_FOR_EVER), state_dir=tmp_path)
        pid_file = tmp_path / "pids" / "child.json"
        record = json.loads(pid_file.read_text())
        del record["folder"]
        pid_file.write_text(json.dumps(record))
        found = find_leftover("child", state_dir=tmp_path)
        await child.terminate(deadline_s=10.0)
        return found is not None and found.pid == child.pid

    assert asyncio.run(run())


def test_a_process_that_was_given_the_same_pid_is_left_alone(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", WAIT_FOR_EVER]) as unrelated:
        (tmp_path / "pids").mkdir()
        pid_file = tmp_path / "pids" / "child.json"
        pid_file.write_text(json.dumps({"pid": unrelated.pid, "identity": "boot:1", "command": []}))

        ended = asyncio.run(end_leftover("child", state_dir=tmp_path, deadline_s=1.0))

        assert ended is None
        assert unrelated.poll() is None
        assert not pid_file.exists()
        unrelated.kill()


@pytest.mark.parametrize("content", ["", "{}", "[]", "null", '{"pid": "x", "identity": ""}'])
def test_a_damaged_pid_file_names_nobody(tmp_path: Path, content: str) -> None:
    (tmp_path / "pids").mkdir()
    (tmp_path / "pids" / "child.json").write_text(content)

    assert find_leftover("child", state_dir=tmp_path) is None


def test_identities_stay_and_differ() -> None:
    with subprocess.Popen([sys.executable, "-c", WAIT_FOR_EVER]) as other:
        mine = process_identity(os.getpid())

        assert mine == process_identity(os.getpid())
        assert mine != process_identity(other.pid)
        other.kill()
    assert process_identity(other.pid) is None
