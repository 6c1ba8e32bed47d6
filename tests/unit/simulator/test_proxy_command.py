"""The fault proxy as a child process, driven by a synchronous test as the fault matrix does."""

import json
import signal
import socket
from collections.abc import Iterator
from typing import IO, Any

import pytest

from unit.simulator.children import Child, Children, Start, check_refused, line_of

MODULE = "k2.simulator.proxy_command"


@pytest.fixture
def start(children: Children) -> Start:
    return lambda *flags: children.start(MODULE, *flags)


@pytest.fixture
def target() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(10)
        yield listening


def _ask(child: Child, order: object) -> Any:
    stdin: IO[str] | None = child.stdin
    assert stdin is not None
    stdin.write((order if isinstance(order, str) else json.dumps(order)) + "\n")
    stdin.flush()
    return json.loads(line_of(child))


def _proxied(start: Start, target: socket.socket) -> tuple[Child, int]:
    child = start("--target", f"127.0.0.1:{target.getsockname()[1]}", "--json")
    return child, json.loads(line_of(child))["port"]


def test_it_is_steered_by_lines_and_answers_each(start: Start, target: socket.socket) -> None:
    child, port = _proxied(start, target)
    near = socket.create_connection(("127.0.0.1", port))
    near.settimeout(10)
    far, _ = target.accept()
    near.sendall(b"ping")
    assert far.recv(4) == b"ping"
    assert _ask(child, {"do": "status"})["connections"] == 1

    assert _ask(child, {"do": "stall"})["stalled"] is True
    far.sendall(b"pong")
    near.settimeout(0.1)
    with pytest.raises(TimeoutError):
        near.recv(4)
    near.settimeout(10)
    assert _ask(child, {"do": "resume"})["stalled"] is False
    assert near.recv(4) == b"pong"

    assert _ask(child, {"do": "refuse"})["accepting"] is False
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
    assert _ask(child, {"do": "accept"})["accepting"] is True
    assert _ask(child, {"do": "delay", "delay_s": 0.5})["delay_s"] == 0.5
    slow = {"do": "throttle", "bytes_per_s": 1000, "direction": "to_client"}
    assert _ask(child, slow)["ok"] is True
    assert _ask(child, {"do": "throttle", "bytes_per_s": None})["ok"] is True

    answer = _ask(child, {"do": "cut"})
    assert (answer["ok"], answer["cut"], answer["port"]) == (True, 1, port)
    assert answer["connections"] == 0
    with pytest.raises(ConnectionResetError):
        near.recv(1)
    near.close()
    far.close()


@pytest.mark.parametrize(
    "order",
    [
        "cut",
        "",
        {"do": "explode"},
        {"do": "cut", "n": 1},
        {"do": "throttle"},
        {"do": "throttle", "bytes_per_s": 0},
        {"do": "delay", "delay_s": -1},
    ],
)
def test_a_wrong_order_is_answered_and_changes_nothing(
    start: Start, target: socket.socket, order: object
) -> None:
    child, _ = _proxied(start, target)
    before = _ask(child, {"do": "status"})
    wrong = _ask(child, order)
    assert wrong["ok"] is False
    assert wrong["msg"]
    assert _ask(child, {"do": "status"}) == before


@pytest.mark.parametrize("how", ["end of input", "SIGTERM", "SIGINT"])
def test_it_ends_with_its_input_or_at_a_signal(
    start: Start, target: socket.socket, how: str
) -> None:
    child, port = _proxied(start, target)
    near = socket.create_connection(("127.0.0.1", port))
    if how == "end of input":
        assert child.stdin is not None
        child.stdin.close()
        child.stdin = None
    else:
        child.send_signal(signal.Signals[how])
    assert child.wait(timeout=10) == 0
    assert child.stderr is not None
    assert child.stderr.read() == ""
    near.close()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--target", "nowhere"), "HOST:PORT"),
        ((), "--target"),
        (("--target", "127.0.0.1:1", "--host", "192.0.2.1"), "cannot listen"),
    ],
)
def test_a_wrong_flag_is_exit_2_and_oneline_of(
    start: Start, flags: tuple[str, ...], said: str
) -> None:
    child = start(*flags)
    check_refused(child, said=said)
