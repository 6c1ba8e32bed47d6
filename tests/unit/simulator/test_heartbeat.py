import pytest

from k2.simulator.heartbeat import Heartbeat, PongCheck


def _heartbeat(check: PongCheck = PongCheck.STRICT) -> Heartbeat:
    return Heartbeat(now_s=0, interval_s=20, timeout_s=60, check=check)


def test_pings_are_due_each_interval_and_not_before() -> None:
    heartbeat = _heartbeat()
    due = [now for now in range(100) if heartbeat.ping_due(now, str(now).encode())]
    assert due == [20, 40, 60, 80]


def test_the_deadline_runs_from_the_oldest_unanswered_ping() -> None:
    heartbeat = _heartbeat()
    for now in (20, 40, 60):
        heartbeat.ping_due(now, str(now).encode())
    assert not heartbeat.expired(79.9)
    assert heartbeat.expired(80)
    assert heartbeat.pong(b"20")
    assert not heartbeat.expired(99)
    assert heartbeat.expired(100)


def test_a_pong_answers_its_ping_and_all_older_ones() -> None:
    heartbeat = _heartbeat()
    for now in (20, 40, 60):
        heartbeat.ping_due(now, str(now).encode())
    assert heartbeat.pong(b"40")
    assert not heartbeat.expired(119)
    assert heartbeat.expired(120)
    assert not heartbeat.pong(b"20")


@pytest.mark.parametrize("payload", [b"", b"21", b"0020"])
def test_other_pongs_keep_nothing_alive(payload: bytes) -> None:
    heartbeat = _heartbeat()
    assert not heartbeat.pong(payload)
    heartbeat.ping_due(20, b"20")
    assert not heartbeat.pong(payload)
    assert heartbeat.expired(80)


def test_lenient_takes_any_pong_while_a_ping_is_outstanding() -> None:
    heartbeat = _heartbeat(PongCheck.LENIENT)
    assert not heartbeat.pong(b"")
    heartbeat.ping_due(20, b"20")
    assert heartbeat.pong(b"")
    assert not heartbeat.expired(1000)
