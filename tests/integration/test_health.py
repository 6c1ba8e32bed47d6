"""What the health ports say of real services: starting, writing, standing by, cut off, ending."""

import json
import signal
import time
import urllib.error
import urllib.request
from typing import Any

import pytest

from integration.harness import Process, Room, wait_for
from k2.local.ports import pick_free

pytestmark = pytest.mark.integration


class Port:
    """One service's health port."""

    def __init__(self, number: int) -> None:
        self.number = number

    def ask(self, path: str) -> tuple[int, dict[str, Any]]:
        """Return status and body; 0 when nobody answers."""
        try:
            with urllib.request.urlopen(
                f"http://127.0.0.1:{self.number}{path}", timeout=5
            ) as reply:
                return reply.status, json.load(reply)
        except urllib.error.HTTPError as exc:
            return exc.code, json.load(exc)
        except OSError:
            return 0, {}

    def wait_ready(self, what: str) -> None:
        wait_for(lambda: self.ask("/readyz")[0] == 200, what=f"{what} to be ready")


def start_stream(room: Room, name: str) -> tuple[Process, Port]:
    port = Port(pick_free(1)[0])
    room.extra["K2_HEALTH_PORT"] = str(port.number)
    return room.stream(name=name), port


def test_a_start_that_waits_for_kafka_says_so_from_the_first_moment(room: Room) -> None:
    room.exchange()
    (nowhere,) = pick_free(1)
    room.extra["KAFKA_BOOTSTRAP"] = f"127.0.0.1:{nowhere}"
    process, port = start_stream(room, "waiting")
    wait_for(lambda: port.ask("/livez")[0] == 200, what="the port to be served")
    wait_for(
        lambda: port.ask("/health")[1].get("kafka", {}).get("reachable") is False,
        what="Kafka to be seen away",
    )
    status, found = port.ask("/health")
    assert (status, found["status"], found["phase"]) == (503, "unhealthy", "starting")
    assert found["connection_state"] == "CONNECTING"
    assert found["symbols"] == sorted(room.symbols)
    assert found["problems"][0]["text"].endswith(f"waits for Kafka at 127.0.0.1:{nowhere}.")
    assert port.ask("/startupz")[0] == 503
    status, found = port.ask("/readyz")
    assert status == 503
    assert "Kafka cannot be reached" in found["because"]
    times = []
    for _ in range(20):
        began_s = time.monotonic()
        port.ask("/livez")
        times.append(time.monotonic() - began_s)
    assert sorted(times)[10] < 0.1  # nobody waits for Kafka to be told that
    assert process.end() == 0


def test_writer_standby_and_archive_are_ready_and_a_take_over_keeps_them_so(room: Room) -> None:
    room.exchange("--rate", "200")
    archive_port = Port(pick_free(1)[0])
    room.extra["K2_ARCHIVE_HEALTH_PORT"] = str(archive_port.number)
    first, first_port = start_stream(room, "first")
    first_port.wait_ready("the first instance")
    wait_for(
        lambda: [s["role"] for s in first_port.ask("/health")[1]["shards"]] == ["writer"],
        what="the first instance to write",
    )
    second, second_port = start_stream(room, "second")
    second_port.wait_ready("the standby")
    room.archive()
    archive_port.wait_ready("the archive")
    room.wait_until_archiving()

    def lake() -> Any:
        found = first_port.ask("/health")[1]["lake"]
        return found if found["archive"] and found["archive"]["freshness_s"] else None

    found = wait_for(lake, what="the writer to see the archive's freshness")
    assert found["archive"]["status"] == "healthy", found
    status, archived = archive_port.ask("/health")
    assert (status, archived["phase"]) == (200, "recording")
    trades = next(one for one in archived["tables"] if one["table"] == "trades")
    assert trades["rows"] > 0
    assert trades["last_commit_age_s"] < 60
    assert any(one["topic"] == room.topic for one in archived["topics"])

    def standby() -> Any:
        found = second_port.ask("/health")[1]
        assert found["shards"][0]["role"] == "standby", found
        # A leg that begins, or an archive that has just begun, may leave it degraded for a moment.
        return found["status"] == "healthy" and found["shards"][0]["last_news_age_s"]

    wait_for(standby, what="the standby to see the writer write, and to be well")
    writer = first_port.ask("/health")[1]
    assert writer["commits"]["mean_s"] > 0
    assert {tape["symbol"] for tape in writer["tapes"]} == set(room.symbols)
    assert all(tape["last_price"] and tape["rate_per_s"] > 0 for tape in writer["tapes"][:2])

    # The drain: once it says it is not ready, it never says anything else.
    first.signal(signal.SIGTERM)
    answers = []
    taken_over = False
    while first.running or not taken_over:
        answers.append(first_port.ask("/readyz"))
        ready, health = second_port.ask("/readyz"), second_port.ask("/health")[1]
        assert ready[0] == 200, ready
        assert health["shards"][0]["role"] in ("standby", "taking_over", "writer")
        taken_over = taken_over or health["shards"][0]["role"] == "writer"
    told = [status for status, _ in answers]
    assert told == sorted(told, key=lambda status: {200: 0, 503: 1, 0: 2}[status]), told
    assert first.wait() == 0
    assert room.processes[-1].running
    assert second.running


def test_a_lost_exchange_is_disconnected_then_connected_again(room: Room) -> None:
    room.exchange("--rate", "100")
    _, port = start_stream(room, "stream")
    port.wait_ready("the service")
    assert port.ask("/health")[1]["connection_state"] == "CONNECTED"
    refused = room.control("stream-faults", {"fault": "refuse", "duration_s": 600})
    assert refused["number"]
    room.control("connections", {"drop": "abort"})
    seen: set[str] = set()

    def lost() -> bool:
        status, found = port.ask("/health")
        seen.add(found["connection_state"])
        assert (status == 503) == (found["connection_state"] in ("DISCONNECTED", "CONNECTING"))
        return "DISCONNECTED" in seen

    wait_for(lost, what="the state to be DISCONNECTED")
    status, found = port.ask("/readyz")
    assert (status, found["because"]) == (503, ["not connected"])
    assert port.ask("/livez")[0] == 200
    room.forget_faults()
    wait_for(
        lambda: port.ask("/health")[1]["connection_state"] == "CONNECTED",
        what="the state to be CONNECTED again",
    )
    wait_for(lambda: port.ask("/health")[0] == 200, what="the service to be healthy again")
    port.wait_ready("the service")
