import json
from typing import Any

import pytest

from k2.binance.frames import ErrorReply, Reply
from k2.binance.session import (
    Action,
    Close,
    Connect,
    Ping,
    Send,
    Session,
    SessionLimits,
    State,
)
from k2.errors import StopError

LIMITS = SessionLimits(
    delay_min_s=1.0, delay_max_s=60.0, stale_after_s=30.0, reply_within_s=10.0, probe_every_s=0.0
)
STALE = [Close(1000, "health_check_timeout")]
REFUSED = [Close(1000, "websocket_error")]


def _names(count: int) -> list[str]:
    return [f"s{number}usdt@aggTrade" for number in range(count)]


def _connecting(names: list[str], limits: SessionLimits = LIMITS) -> Session:
    session = Session(names, limits)
    assert session.tick(0.0) == [Connect()]
    assert session.state is State.CONNECTING
    return session


def _live(session: Session) -> bool:
    return session.state is State.LIVE


def _requests(actions: list[Action]) -> list[dict[str, Any]]:
    assert all(isinstance(action, Send) for action in actions)
    return [json.loads(action.text) for action in actions if isinstance(action, Send)]


def _make_live(session: Session, names: list[str], now_s: float) -> None:
    (subscribe,) = _requests(session.opened(now_s))
    (listing,) = _requests(session.replied(Reply(subscribe["id"], None), now_s))
    assert session.replied(Reply(listing["id"], names), now_s) == []
    assert _live(session)


def test_it_connects_once_and_waits_for_the_outcome() -> None:
    session = _connecting(_names(1))
    assert session.tick(5.0) == []


def test_it_subscribes_then_asks_for_the_list_and_only_then_is_live() -> None:
    session = _connecting(["btcusdt@aggTrade"])
    (subscribe,) = _requests(session.opened(1.0))
    assert subscribe == {"method": "SUBSCRIBE", "params": ["btcusdt@aggTrade"], "id": 1}
    (listing,) = _requests(session.replied(Reply(1, None), 1.1))
    assert listing == {"method": "LIST_SUBSCRIPTIONS", "id": 2}
    assert session.state is State.SUBSCRIBING
    assert session.replied(Reply(2, ["x@trade", "btcusdt@aggTrade"]), 1.2) == []
    assert _live(session)


def test_1024_streams_go_in_batches_of_200_and_never_five_frames_in_a_second() -> None:
    names = _names(1024)
    session = _connecting(names)
    sent = [(10.0, request) for request in _requests(session.opened(10.0))]
    now_s, answered, listed = 10.0, 0, False
    while not _live(session):
        now_s = round(now_s + 0.05, 2)
        assert now_s < 20
        sent += [(now_s, request) for request in _requests(session.tick(now_s))]
        while answered < len(sent):
            request = sent[answered][1]
            answered += 1
            listed = request["method"] == "LIST_SUBSCRIPTIONS"
            reply = Reply(request["id"], names if listed else None)
            sent += [(now_s, more) for more in _requests(session.replied(reply, now_s))]
    assert listed
    batches = [request["params"] for _, request in sent if "params" in request]
    assert max(map(len, batches)) <= 200
    assert [name for batch in batches for name in batch] == names
    for at_s, _ in sent:
        # Five close the connection with 1008; one place is left for a pong.
        assert sum(at_s <= other_s < at_s + 1.0 for other_s, _ in sent) <= 4


def test_a_new_connection_starts_over_with_everything() -> None:
    session = _connecting(_names(3))
    _make_live(session, _names(3), 1.0)
    session.closed(2.0, draw=0.0)
    assert session.tick(3.0) == [Connect()]
    _make_live(session, _names(3), 4.0)


def test_a_silent_acknowledgement_is_found_out_by_the_list() -> None:
    session = _connecting(_names(2))
    session.opened(0.0)
    session.replied(Reply(1, None), 0.0)
    assert session.replied(Reply(2, _names(1)), 0.0) == REFUSED
    assert session.state is State.SUBSCRIBING


@pytest.mark.parametrize("result", [None, True, "x", {}, [["a"]], [{}], [1, None]])
def test_a_list_that_is_no_list_of_names_closes_the_connection(result: Any) -> None:
    session = _connecting(_names(1))
    session.opened(0.0)
    session.replied(Reply(1, None), 0.0)
    assert session.replied(Reply(2, result), 0.0) == REFUSED


def test_an_error_reply_closes_the_connection() -> None:
    session = _connecting(_names(1))
    session.opened(0.0)
    assert session.replied(ErrorReply(4, "Too many subscriptions", 1), 0.0) == REFUSED


def test_replies_to_nothing_asked_are_ignored() -> None:
    session = _connecting(_names(1))
    session.opened(0.0)
    for request_id in (None, "abc", 99):
        assert session.replied(Reply(request_id, None), 0.0) == []
    assert session.state is State.SUBSCRIBING
    session.replied(Reply(1, None), 0.0)
    assert session.replied(Reply(1, None), 0.0) == []


def test_an_answer_that_does_not_come_closes_the_connection() -> None:
    session = _connecting(_names(1))
    session.opened(0.0)
    assert session.tick(10.0) == []
    assert session.tick(10.1) == STALE


def test_a_connection_without_trades_is_stale() -> None:
    session = _connecting(_names(1))
    _make_live(session, _names(1), 100.0)
    assert session.tick(130.0) == []
    assert session.tick(130.1) == STALE
    session.last_data_s = 129.0
    assert session.tick(159.0) == []
    assert session.tick(159.1) == STALE


def test_staleness_can_be_turned_off() -> None:
    session = _connecting(_names(1), SessionLimits(stale_after_s=0, probe_every_s=0))
    _make_live(session, _names(1), 100.0)
    assert session.tick(10_000.0) == []


def test_the_client_probe_comes_every_so_often_when_asked_for() -> None:
    session = _connecting(_names(1), SessionLimits(stale_after_s=0, probe_every_s=180))
    _make_live(session, _names(1), 100.0)
    assert session.tick(279.9) == []
    assert session.tick(280.0) == [Ping()]
    assert session.tick(280.1) == []
    assert session.tick(460.0) == [Ping()]


def _waits(session: Session, *, data: bool, times: int, from_s: float = 1e3) -> list[float]:
    """Connect, be closed at once, and return how long the session then waits; ``times`` times."""
    now_s, waits = from_s, list[float]()
    for _ in range(times):
        session.tick(now_s)
        session.opened(now_s)
        if data:
            session.last_data_s = now_s + 0.5
        now_s += 1.0
        assert session.closed(now_s, draw=0.999999) == []
        assert session.state is State.WAITING
        wait_s = session.retry_at_s - now_s
        assert session.tick(now_s + wait_s - 0.01) == []
        waits.append(round(wait_s))
        now_s += wait_s
    return waits


def test_backoff_grows_while_connections_bring_no_data_even_when_closed_cleanly() -> None:
    assert _waits(Session(_names(1), LIMITS), data=False, times=8) == [1, 2, 4, 8, 16, 32, 60, 60]


def test_backoff_starts_over_only_after_data_flowed() -> None:
    session = Session(_names(1), LIMITS)
    _waits(session, data=False, times=5)
    assert _waits(session, data=True, times=3) == [1, 1, 1]
    # Data of an earlier connection does not count for the next one.
    assert _waits(session, data=False, times=3, from_s=1e4) == [2, 4, 8]


def test_a_refused_connect_backs_off_like_a_dropped_one() -> None:
    session = _connecting(_names(1))
    session.closed(0.0, draw=0.0)
    assert session.retry_at_s == 1.0
    assert session.tick(0.9) == []
    assert session.tick(1.0) == [Connect()]


def test_a_leaving_server_is_left_at_once() -> None:
    session = _connecting(_names(1))
    _make_live(session, _names(1), 1.0)
    assert session.server_leaving() == [Close(1000, "server_shutdown")]


def test_stop_closes_cleanly_and_for_good() -> None:
    session = _connecting(_names(1))
    _make_live(session, _names(1), 1.0)
    assert session.stop() == [Close(1000, "shutdown")]
    assert session.closed(2.0, draw=0.0) == []
    assert session.tick(1_000.0) == []
    assert session.state is State.STOPPED


def test_stop_before_a_connection_needs_no_close() -> None:
    session = Session(_names(1), LIMITS)
    assert session.stop() == []
    assert session.tick(100.0) == []


def test_a_handshake_that_ends_after_stop_does_not_bring_the_session_back() -> None:
    session = _connecting(_names(1))
    assert session.stop() == []
    assert session.opened(1.0) == [Close(1000, "shutdown")]
    assert session.state is State.STOPPED


def test_more_streams_than_one_connection_carries_are_refused_before_connecting() -> None:
    Session(_names(1024), LIMITS)
    with pytest.raises(StopError, match="BINANCE_SYMBOLS"):
        Session(_names(1025), LIMITS)
    with pytest.raises(StopError, match="BINANCE_SYMBOLS"):
        Session([], LIMITS)
