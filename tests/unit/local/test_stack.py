import asyncio
import os
import socket
from pathlib import Path

import pytest

from k2.errors import StopError
from k2.local.file_lock import FileLock
from k2.local.stack import Stack


def test_a_state_directory_belongs_to_one_k2(tmp_path: Path) -> None:
    held = FileLock.try_acquire(tmp_path / "stack.lock")
    assert held is not None
    held.write("4711")

    with pytest.raises(StopError, match=r"process 4711.*--state-dir"):
        asyncio.run(Stack(state_dir=tmp_path).start())
    held.release()


@pytest.mark.parametrize(
    ("name", "flag"),
    [
        ("kafka_port", "--kafka-port"),
        ("registry_port", "--registry-port"),
        ("advertised_port", "--advertised-port"),
    ],
)
def test_a_port_in_use_is_said_before_anything_is_downloaded_or_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, flag: str
) -> None:
    monkeypatch.setenv("K2_CACHE_DIR", str(tmp_path / "cache"))
    with socket.create_server(("127.0.0.1", 0)) as server:
        ports: dict[str, int | None] = {
            "kafka_port": None,
            "registry_port": None,
            "advertised_port": None,
            name: server.getsockname()[1],
        }
        stack = Stack(
            state_dir=tmp_path / "state",
            kafka_port=ports["kafka_port"],
            registry_port=ports["registry_port"],
            advertise="host.docker.internal",
            advertised_port=ports["advertised_port"],
        )

        with pytest.raises(StopError, match=rf"process {os.getpid()} .*{flag}"):
            asyncio.run(stack.start())

    assert not (tmp_path / "cache").exists()
    lock = FileLock.try_acquire(tmp_path / "state" / "stack.lock")
    assert lock is not None, "a start that was refused gives the directory back"
    lock.release()
