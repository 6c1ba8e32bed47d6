import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from k2.errors import StopError
from k2.ingestion.own_ports import is_free
from k2.local.ports import (
    ANY_ADDRESS,
    WantedPort,
    find_holder,
    pick_free,
    remembered_ports,
    require_free,
)


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_port_that_is_listened_on_is_not_free(taken: int) -> None:
    assert not is_free(taken)
    assert not is_free(taken, host=ANY_ADDRESS)


def test_a_port_taken_on_every_address_is_not_free_on_loopback() -> None:
    with socket.create_server((ANY_ADDRESS, 0)) as server:
        assert not is_free(server.getsockname()[1])


def test_the_holder_is_named_with_pid_and_command(taken: int) -> None:
    holder = find_holder(taken)

    assert holder is not None
    assert holder.pid == os.getpid()
    assert "py" in holder.command


def test_nobody_holds_a_free_port() -> None:
    (port,) = pick_free(1)

    assert is_free(port)
    assert find_holder(port) is None


def test_a_port_in_use_is_one_line_with_the_holder_and_the_way_out(taken: int) -> None:
    with pytest.raises(StopError) as caught:
        require_free(WantedPort(taken, "Kafka", "--kafka-port"))

    message = str(caught.value)
    assert f"port {taken} (Kafka) is in use by process {os.getpid()} (" in message
    assert "--kafka-port" in message
    assert "--ports auto" in message
    assert "\n" not in message


def test_all_ports_in_use_are_named_at_once_and_free_ones_are_not(taken: int) -> None:
    (free,) = pick_free(1)
    with socket.create_server(("127.0.0.1", 0)) as server:
        other = server.getsockname()[1]
        with pytest.raises(StopError) as caught:
            require_free(
                WantedPort(taken, "Kafka", "--kafka-port"),
                WantedPort(free, "health", "K2_HEALTH_PORT"),
                WantedPort(other, "metrics", "K2_METRICS_PORT"),
            )

    message = str(caught.value)
    assert f"port {taken} (Kafka)" in message
    assert f"port {other} (metrics)" in message
    assert "choose others with --kafka-port, K2_METRICS_PORT" in message
    assert "health" not in message
    require_free(WantedPort(free, "health", "K2_HEALTH_PORT"))


def test_picked_ports_are_different_and_outside_the_range_of_outgoing_connections() -> None:
    first = pick_free(5)
    second = pick_free(5, excluding=first)

    assert len({*first, *second}) == 10
    assert all(20_000 <= port < 32_000 for port in first)


def test_ports_stay_the_same_from_run_to_run(tmp_path: Path) -> None:
    path = tmp_path / "state" / "ports.json"

    first = remembered_ports(path, ["kafka", "controller"], excluding=())
    again = remembered_ports(path, ["controller", "kafka", "registry"], excluding=())

    assert {name: again[name] for name in first} == first
    assert len(set(again.values())) == 3


def test_a_remembered_port_that_was_taken_meanwhile_is_replaced(tmp_path: Path, taken: int) -> None:
    path = tmp_path / "ports.json"
    path.write_text(f'{{"kafka": {taken}, "other": 1}}')

    ports = remembered_ports(path, ["kafka"], excluding=())

    assert ports["kafka"] != taken
    assert remembered_ports(path, ["kafka"], excluding=()) == ports


def test_a_remembered_port_promised_to_something_else_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "ports.json"
    first = remembered_ports(path, ["kafka"], excluding=())

    assert remembered_ports(path, ["kafka"], excluding=first.values()) != first


def test_names_that_are_asked_for_one_after_another_never_share_a_port(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("k2.local.ports._PICK_FROM", range(27_000, 27_003))
    monkeypatch.setattr("k2.local.ports.can_listen", lambda *_a, **_k: True)
    monkeypatch.setattr("k2.local.ports.is_free", lambda *_a, **_k: True)
    path = tmp_path / "ports.json"

    found = [
        remembered_ports(path, [name], excluding=())[name]
        for name in ("health", "kafka", "exchange")
    ]

    assert sorted(found) == [27_000, 27_001, 27_002]


def test_a_file_that_repeats_a_port_is_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("k2.local.ports.is_free", lambda *_a, **_k: True)
    path = tmp_path / "ports.json"
    path.write_text('{"health": 27000, "kafka": 27000}')

    first = remembered_ports(path, ["health"], excluding=())
    kafka = remembered_ports(path, ["kafka"], excluding=())

    assert kafka == {"kafka": 27_000}
    assert first["health"] != 27_000
    assert remembered_ports(path, ["health"], excluding=()) == first


@pytest.mark.parametrize("content", ["", "[]", "{", '{"kafka": "x"}', '{"kafka": null}'])
def test_a_damaged_file_is_replaced(tmp_path: Path, content: str) -> None:
    path = tmp_path / "ports.json"
    path.write_text(content)

    ports = remembered_ports(path, ["kafka"], excluding=())

    assert remembered_ports(path, ["kafka"], excluding=()) == ports
