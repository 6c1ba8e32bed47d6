"""Causes between us and the exchange: the runbook's commands show each as it says."""

import re
from contextlib import ExitStack
from urllib.parse import urlsplit

import pytest

from integration.crooked import CrookedExchange
from integration.harness import Room, wait_for
from runbooks.causes import Line, blocked_address
from runbooks.desk import Desk
from unit.doctor.servers import DAY, encrypted, in_background, make_authority, tls_port

pytestmark = pytest.mark.integration

AGE_MAX_S = 8.0

ALARMING = re.compile(r"error|exception|critical|invalid|parse", re.IGNORECASE)
"""What operators grep for: a healthy run never says it."""


def test_a_good_start_shows_what_the_runbook_says(room: Room, desk: Desk) -> None:
    room.extra["BINANCE_CONNECTION_AGE_MAX"] = str(AGE_MAX_S)
    desk.sees("process-down")
    room.exchange("--rate", "100")
    stream = room.stream()
    desk.archive()
    room.wait_until_archiving()
    for name in (
        *("start-process", "start-connected", "start-health", "start-topic", "start-schema"),
        *("start-figures", "registry-well", "rotation", "memory", "promise-kept"),
    ):
        desk.sees(name)
    for service in ("binance_client", "archive"):  # contract R090
        lines = desk.log(service).read_text("utf-8").splitlines()
        assert lines
        assert not [line for line in lines if ALARMING.search(line)]
    # The rhythm of a symbol is known after some trades; then it falls silent.
    wait_for(lambda: desk.health()["messages_received"] > 300, what="a rhythm")
    keep_newcomers_out(room, desk)
    room.stop_trading()
    desk.sees("no-messages")
    assert stream.end() == 0
    desk.sees("shutdown-complete")


def keep_newcomers_out(room: Room, desk: Desk) -> None:
    """Let no connection be replaced: those that are there grow older than they should."""
    family = "binance_connection_rotations_total"
    wait_for(lambda: sum(desk.samples(family).values()) > 0, what="a rotation")
    room.control("stream-faults", {"fault": "refuse"})
    desk.sees("rotation-impossible")
    ages = "binance_connection_lifetime_seconds"
    wait_for(lambda: min(desk.samples(ages).values()) > AGE_MAX_S, what="legs to be overdue")
    assert desk.health()["status"] == "healthy"
    rotated = sum(desk.samples(family).values())
    room.forget_faults()
    wait_for(lambda: sum(desk.samples(family).values()) > rotated, what="a rotation")
    wait_for(lambda: min(desk.samples(ages).values()) < AGE_MAX_S, what="young legs")


def test_network_down_blocked_without_heartbeat_and_rate_limited(room: Room, desk: Desk) -> None:
    room.exchange("--rate", "100")
    port = urlsplit(room.exchange_url).port
    assert port is not None
    with ExitStack() as lines:
        leg_a, leg_b, rest = (lines.enter_context(Line(room.stack, port)) for _ in range(3))
        room.extra |= {
            "BINANCE_WS_URL": f"ws://{leg_a.address}/ws",
            "BINANCE_WS_URL_FALLBACK": f"ws://{leg_b.address}/ws",
            "BINANCE_REST_URL": f"http://{rest.address}",
            "BINANCE_STALE_TIMEOUT": "5",
        }
        room.stream()
        wait_for(lambda: desk.health().get("ready"), what="the capture to record")

        room.control("connections", {"announce_shutdown": {"lead_s": 1.0}})
        desk.sees("server-shutdown")
        wait_for(lambda: len(room.connections()) == 2, what="one connection of each leg")
        closed = {"drop": "close", "code": 1008, "reason": "Too many requests", "which": "oldest"}
        room.control("connections", closed)
        desk.sees("connection-closed")
        desk.sees_health("healthy")
        room.control("connections", {"drop": "abort", "which": "oldest"})
        desk.sees("connection-lost")

        leg_b.cut()
        desk.sees("stale-leg")
        leg_a.cut()
        rest.cut()
        desk.sees("network-down")
        with blocked_address() as nowhere:
            urls = dict.fromkeys(
                ("BINANCE_WS_URL", "BINANCE_WS_URL_FALLBACK"), f"ws://{nowhere}/ws"
            )
            desk.sees(
                "outbound-blocked", settings={**urls, "BINANCE_REST_URL": f"http://{nowhere}"}
            )
        for line in (leg_a, leg_b, rest):
            line.mend()
        desk.sees_health("healthy")

        for which in ("oldest", "newest"):  # new connections are well
            room.control("stream-faults", {"fault": "half_open", "which": which})
        desk.sees("line-dead")
        room.forget_faults()
        desk.sees_health("healthy")

        room.control("stream-faults", {"fault": "refuse", "status": 429})
        room.control("faults", {"status": 429, "count": 1000, "retry_after_s": 2})
        room.control("connections", {"drop": "abort"})
        desk.sees("rate-limited")
        for status, block in ((418, "banned"), (451, "refused-here")):
            room.forget_faults()
            room.control("stream-faults", {"fault": "refuse", "status": status})
            room.control("faults", {"status": status, "count": 1000, "retry_after_s": 2})
            room.control("connections", {"drop": "abort"})
            desk.sees(block)
        room.forget_faults()
        desk.sees_health("healthy")


def test_a_name_without_address_and_certificates_that_are_not_believed(
    room: Room, desk: Desk
) -> None:
    room.exchange("--rate", "100")
    port = urlsplit(room.exchange_url).port
    assert port is not None
    authority = make_authority(room.path)
    with (
        in_background(encrypted(authority.context("127.0.0.1"), port)) as believed,
        tls_port(authority.context("127.0.0.1", left=-DAY)) as expired,
    ):
        nowhere = exchange_at("stream.binance.invalid:9443", rest="api.binance.invalid")
        signed = exchange_at(f"127.0.0.1:{believed}", rest=f"127.0.0.1:{believed}")
        room.extra |= {
            "BINANCE_WS_URL": nowhere["BINANCE_WS_URL"],
            "BINANCE_WS_URL_FALLBACK": signed["BINANCE_WS_URL"],
        }
        stream = room.stream()
        desk.sees_health("unhealthy")
        desk.sees("name-unresolved", settings=nowhere)
        desk.sees("certificate-not-believed", settings=signed)
        old = exchange_at(f"127.0.0.1:{expired}", rest=f"127.0.0.1:{expired}")
        authorities = {"BINANCE_TLS_CA": str(room.path / "authority.pem")}
        desk.sees("certificate-expired", settings=old | authorities)

        desk.sees("authority-named", settings=signed)
        assert stream.end() == 0
        room.extra |= authorities
        with CrookedExchange(room.exchange_url, ahead_s=0) as crooked:
            room.extra["BINANCE_WS_URL"] = crooked.url.replace("http", "ws") + "/ws"
            room.stream()
            desk.sees_health("degraded")  # by the leg whose subscriptions are refused
            assert [leg["live"] for leg in desk.health()["legs"]] == [False, True]
            desk.sees("subscription-refused")


def exchange_at(ws: str, *, rest: str) -> dict[str, str]:
    """Return the settings of an exchange that speaks TLS at these places."""
    url = f"wss://{ws}/ws"
    return {
        "BINANCE_WS_URL": url,
        "BINANCE_WS_URL_FALLBACK": url,
        "BINANCE_REST_URL": f"https://{rest}",
    }
