"""What happens to connections and messages is seen on the metrics page: the cause, then its effect.

A row of the operations contract is covered by seeing its metric move, not by its name.
"""

import platform
import time
from typing import Any

import psutil  # type: ignore[import-untyped]  # ships no type information
import pytest

from integration.crooked import CrookedExchange
from integration.harness import Room, wait_for
from integration.watched import Watched

pytestmark = pytest.mark.integration

AHEAD_S = 5.0

_TRADE = (
    '{{"e":"aggTrade","E":1767225600123,"s":"BTCUSDT","a":1,"p":{price},"q":"1","f":1,"l":1,'
    '"T":1767225600123,"m":true}}'
)
BAD_FRAMES = {
    "parse": "{oops",
    "missing_field": '{"e":"aggTrade","s":"BTCUSDT","E":1,"a":1}',
    "invalid_field": _TRADE.format(price='"NaN"'),
    "unexpected_type": _TRADE.format(price="1"),
}


def fault(room: Room, kind: str, **more: Any) -> None:
    room.control("stream-faults", {"fault": kind, **more})


def refused_heard_and_beating(room: Room) -> Watched:
    """Start a capture before it can connect; let it in; return it when it hears and writes."""
    fault(room, "refuse")
    one = Watched(room, room.stream(name="one"))
    assert one.value("binance_connection_state") == 0
    assert one.value("binance_messages_received_total") == 0
    one.reaches(1, "binance_connection_errors_total", error_type="handshake")
    one.until(lambda delay_s: delay_s > 0, "binance_reconnect_delay_seconds")
    room.forget_faults()
    one.becomes(1, "binance_connection_state")
    for symbol in room.symbols:
        one.rises("binance_messages_received_total", symbol=symbol)
    one.becomes(0, "binance_reconnect_delay_seconds")
    one.until(lambda at_s: 0 <= time.time() - at_s < 10, "binance_last_message_timestamp_seconds")
    one.rises("duplicate_messages_detected_total", exchange="BINANCE")
    for name in ("kafka_messages_produced_total", "kafka_produce_duration_seconds_count"):
        one.rises(name, exchange="BINANCE", topic=room.topic)
    for name in (
        "binance_message_latency_seconds_count",
        "k2_kafka_commit_seconds_count",
        "k2_frames_received_total",
        "k2_items_committed_total",
    ):
        one.rises(name)
    assert one.value("binance_message_latency_seconds_sum") > 0
    # It can be negative, so it has neither sum nor count of its own (OpenMetrics).
    one.rises("binance_exchange_lag_seconds_bucket", le="+Inf")
    one.becomes(1, "serializer_cache_size", component_type="producer")
    return one


def test_what_happens_to_connections_and_messages_is_seen(room: Room) -> None:
    room.measured = True
    room.extra |= {
        "BINANCE_STALE_TIMEOUT": "0",
        "BINANCE_HEARTBEAT_INTERVAL": "1",
        "K2_COLOR": "green",
    }
    room.exchange("--rate", "200", "--ping-interval", "2")
    one = refused_heard_and_beating(room)
    heartbeats(room, one)
    bad_messages(room, one)
    own_figures(one)
    of_one = room.connections()
    with CrookedExchange(room.exchange_url, ahead_s=AHEAD_S) as crooked:
        room.extra |= {
            "BINANCE_STALE_TIMEOUT": "2",
            "BINANCE_CONNECTION_AGE_MAX": "6",
            "BINANCE_WS_URL_FALLBACK": crooked.url.replace("http", "ws") + "/ws",
            "BINANCE_REST_URL": crooked.url,
            "K2_DLQ_DIR": "/dev/null/no-directory",
        }
        other = Watched(room, room.stream(name="other"))
        assert other.value("k2_build_info", color="green", python=platform.python_version()) == 1
        a_leg_that_is_refused_and_a_clock_that_is_behind(one, other)
        rotations(other)
        silence(room, one, other, of_one)
    assert other.service.end() == 0
    ends(room, one)
    assert one.value("k2_promise_broken") == 0
    assert one.service.end() == 0


def heartbeats(room: Room, one: Watched) -> None:
    one.reaches(2, "binance_server_pings_total")
    at_s = one.value("binance_last_server_ping_timestamp_seconds")
    assert abs(time.time() - at_s) < 15
    fault(room, "mute_pings")
    # Our own probes are answered all the same.
    one.until(lambda pong_s: pong_s > at_s + 5, "binance_last_pong_timestamp_seconds")
    muted_s = one.value("binance_last_server_ping_timestamp_seconds")
    assert muted_s < one.value("binance_last_pong_timestamp_seconds") - 1
    room.forget_faults()
    one.until(lambda ping_s: ping_s > muted_s, "binance_last_server_ping_timestamp_seconds")


def bad_messages(room: Room, one: Watched) -> None:
    for error_type, text in BAD_FRAMES.items():
        fault(room, "malformed", text=text)
        # Two legs: each brings its own copy.
        one.becomes(2, "binance_message_errors_total", error_type=error_type)
        one.becomes(2, "binance_dlq_records_total", error_type=error_type)
    one.becomes(8, "k2_frames_total", kind="rejected")
    samples = one.samples
    assert samples.value("k2_frames_total") == samples.value("k2_frames_received_total")
    offered = samples.value("k2_trades_offered_total")
    parts = ("emitted_total", "copies_total", "held", "dropped_total")
    assert offered == sum(samples.value(f"k2_trades_{part}") for part in parts) > 0
    firsts = samples.value("k2_leg_first_copies_total")
    assert firsts == samples.value("binance_messages_received_total")
    assert samples.value("k2_next_id", symbol="BTCUSDT") > 0


def own_figures(one: Watched) -> None:
    assert one.service.popen is not None
    used = psutil.Process(one.service.popen.pid).memory_info()
    samples = one.samples
    assert samples.value("process_memory_rss_bytes") == pytest.approx(used.rss, rel=0.1)
    assert samples.value("process_memory_vms_bytes") == pytest.approx(used.vms, rel=0.1)
    assert samples.value("process_resident_memory_bytes") == pytest.approx(used.rss, rel=0.1)
    assert abs(samples.value("k2_clock_offset_seconds")) < AHEAD_S / 2
    assert 0 < samples.value("k2_clock_offset_uncertainty_seconds") < AHEAD_S / 2


def a_leg_that_is_refused_and_a_clock_that_is_behind(one: Watched, other: Watched) -> None:
    other.until(
        lambda offset_s: offset_s == pytest.approx(-AHEAD_S, abs=1), "k2_clock_offset_seconds"
    )
    other.reaches(1, "binance_reconnections_total", reason="websocket_error")
    other.reaches(1, "binance_connection_errors_total", error_type="protocol")
    other.becomes(1, "binance_connection_state")
    other.rises("k2_leg_first_copies_total", leg="a")
    assert other.value("k2_leg_first_copies_total", leg="b") == 0
    # A standby's messages rise as the writer's do; it produces nothing (contract C7).
    assert other.value("kafka_messages_produced_total") == 0
    assert one.value("kafka_messages_produced_total") > 0


def rotations(other: Watched) -> None:
    age_s = other.reaches(3, "binance_connection_lifetime_seconds", leg="a")
    states = set()

    def rotated() -> bool:
        samples = other.samples
        states.add(samples.value("binance_connection_state"))
        labels = {"reason": "scheduled_rotation", "leg": "a"}
        return samples.value("binance_connection_rotations_total", **labels) > 0

    wait_for(rotated, what="the only leg that works to be rotated")
    assert states == {1}, "the new connection is there before the old one goes"
    other.until(lambda new_s: new_s < age_s, "binance_connection_lifetime_seconds", leg="a")
    assert other.value("binance_reconnections_total", reason="connection_closed") == 0


def silence(room: Room, one: Watched, other: Watched, of_one: list[int]) -> None:
    """Nothing comes on any connection: one probes for a pong, the other counts what is stale."""
    assert one.value("binance_pong_timeouts_total") == 0
    for number in of_one:
        # Long enough for the probe; then it is heard again, and the newcomer overlaps with it.
        fault(room, "half_open", which=number, duration_s=14)
    for number in set(room.connections()) - set(of_one):
        fault(room, "half_open", which=number)
    other.reaches(1, "binance_reconnections_total", reason="health_check_timeout")
    one.reaches(1, "binance_reconnections_total", reason="pong_timeout")
    one.reaches(1, "binance_pong_timeouts_total")
    room.forget_faults()
    # A disk that takes no letter: counted, and nothing else happens.
    assert other.value("binance_dlq_records_total") == 0
    fault(room, "malformed")
    other.reaches(1, "binance_dlq_write_errors_total")
    assert other.value("binance_dlq_records_total") == 0


def ends(room: Room, one: Watched) -> None:
    """Connections that end in every way; at last none is left."""
    one.becomes(1, "binance_connection_state")
    room.control("connections", {"announce_shutdown": {"lead_s": 3.0}})
    one.reaches(1, "binance_reconnections_total", reason="server_shutdown")
    assert one.value("binance_connection_state") == 1
    wait_for(lambda: len(room.connections()) == 2, what="two connections of the one instance")
    room.control("connections", {"drop": "close", "which": "oldest"})
    one.reaches(1, "binance_reconnections_total", reason="connection_closed")
    assert one.value("binance_connection_state") == 1, "the other leg is there"
    fault(room, "refuse")
    room.control("connections", {"drop": "abort"})
    one.reaches(1, "binance_reconnections_total", reason="unexpected_error")
    one.becomes(0, "binance_connection_state")
    one.becomes(0, "binance_connection_lifetime_seconds", leg="a")
    room.forget_faults()
    one.becomes(1, "binance_connection_state")
