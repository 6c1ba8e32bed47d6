import json
from collections.abc import Iterable
from typing import Any

import pytest

from k2.binance.frames import ErrorReply, Reply
from k2.binance.session import (
    CLOSE_TIMEOUT_S,
    PINGS_MISSING_S,
    Abort,
    Action,
    Close,
    Ping,
    Send,
    Session,
    SessionLimits,
    State,
)
from k2.market import StreamKind

LIMITS = SessionLimits(stale_after_s=30.0, reply_within_s=10.0, probe_every_s=0.0)
STALE = [Close(1000, "health_check_timeout")]
REFUSED = [Close(1000, "websocket_error")]


def _symbols(count: int) -> list[str]:
    return [f"S{number}USDT" for number in range(count)]


def _names(symbols: Iterable[str]) -> list[str]:
    return [f"{symbol.lower()}@aggTrade" for symbol in symbols]


def _session(symbols: list[str], limits: SessionLimits = LIMITS) -> Session:
    return Session(symbols, StreamKind.AGG_TRADE, limits)


def _requests(actions: list[Action]) -> list[dict[str, Any]]:
    assert all(isinstance(action, Send) for action in actions)
    return [json.loads(action.text) for action in actions if isinstance(action, Send)]


def _is_live(session: Session) -> bool:
    return session.state is State.LIVE


def _live(symbols: list[str], *, at_s: float, limits: SessionLimits = LIMITS) -> Session:
    session = _session(symbols, limits)
    (subscribe,) = _requests(session.opened(at_s))
    (listing,) = _requests(session.replied(Reply(subscribe["id"], None), at_s))
    assert session.replied(Reply(listing["id"], _names(symbols)), at_s) == []
    assert _is_live(session)
    return session


def _acknowledge(session: Session, actions: list[Action], at_s: float) -> list[Action]:
    """Answer requests and those their answers bring, until it asks for the list."""
    while (requests := _requests(actions)) and requests[0]["method"] != "LIST_SUBSCRIPTIONS":
        replies = (session.replied(Reply(request["id"], None), at_s) for request in requests)
        actions = [action for more in replies for action in more]
    return actions


def test_before_the_handshake_it_has_nothing_to_do() -> None:
    session = _session(_symbols(1))
    assert session.state is State.OPENING
    assert session.tick(1e6) == []
    assert session.next_due_s(0.0) == float("inf")


def test_it_subscribes_then_asks_for_the_list_and_only_then_is_live() -> None:
    session = _session(["BTCUSDT"])
    (subscribe,) = _requests(session.opened(1.0))
    assert subscribe == {"method": "SUBSCRIBE", "params": ["btcusdt@aggTrade"], "id": 1}
    (listing,) = _requests(session.replied(Reply(1, None), 1.1))
    assert listing == {"method": "LIST_SUBSCRIPTIONS", "id": 2}
    assert session.state is State.SUBSCRIBING
    assert session.replied(Reply(2, ["x@trade", "btcusdt@aggTrade"]), 1.2) == []
    assert _is_live(session)
    assert session.live_at_s == 1.2


def test_with_nothing_to_carry_it_is_live_at_once() -> None:
    session = _session([])
    assert session.opened(5.0) == []
    assert _is_live(session)
    assert session.live_at_s == 5.0


def test_1024_streams_go_in_batches_of_200_and_never_five_frames_in_a_second() -> None:
    names = _names(_symbols(1024))
    session = _session(_symbols(1024))
    sent = [(10.0, request) for request in _requests(session.opened(10.0))]
    now_s, answered = 10.0, 0
    while not _is_live(session):
        now_s = session.next_due_s(now_s)
        assert now_s < 20
        sent += [(now_s, request) for request in _requests(session.tick(now_s))]
        while answered < len(sent):
            request = sent[answered][1]
            answered += 1
            listed = request["method"] == "LIST_SUBSCRIPTIONS"
            reply = Reply(request["id"], names if listed else None)
            sent += [(now_s, more) for more in _requests(session.replied(reply, now_s))]
    assert sent[-1][1]["method"] == "LIST_SUBSCRIPTIONS"
    batches = [request["params"] for _, request in sent if "params" in request]
    assert max(map(len, batches)) <= 200
    assert [name for batch in batches for name in batch] == sorted(names)
    for at_s, _ in sent:
        # Five close the connection with 1008; one place is left for a pong.
        assert sum(at_s <= other_s < at_s + 1.0 for other_s, _ in sent) <= 4


def test_a_silent_acknowledgement_is_found_out_by_the_list() -> None:
    session = _session(_symbols(2))
    session.opened(0.0)
    session.replied(Reply(1, None), 0.0)
    assert session.replied(Reply(2, _names(_symbols(1))), 0.0) == REFUSED
    assert session.state is State.CLOSING


@pytest.mark.parametrize("result", [None, True, "x", {}, [["a"]], [{}], [1, None]])
def test_a_list_that_is_no_list_of_names_closes_the_connection(result: Any) -> None:
    session = _session(_symbols(1))
    session.opened(0.0)
    session.replied(Reply(1, None), 0.0)
    assert session.replied(Reply(2, result), 0.0) == REFUSED


def test_an_error_reply_closes_the_connection() -> None:
    session = _session(_symbols(1))
    session.opened(0.0)
    assert session.replied(ErrorReply(4, "Too many subscriptions", 1), 0.0) == REFUSED
    assert session.close_reason == "websocket_error"


def test_replies_to_nothing_asked_are_ignored() -> None:
    session = _session(_symbols(1))
    session.opened(0.0)
    for request_id in (None, "abc", 99):
        assert session.replied(Reply(request_id, None), 0.0) == []
    assert session.state is State.SUBSCRIBING
    session.replied(Reply(1, None), 0.0)
    assert session.replied(Reply(1, None), 0.0) == []


def test_an_answer_that_does_not_come_closes_the_connection() -> None:
    session = _session(_symbols(1))
    session.opened(100.0)
    assert session.next_due_s(100.0) == 110.0
    assert session.tick(109.9) == []
    assert session.tick(110.0) == STALE


def test_other_symbols_are_subscribed_and_given_up_without_touching_the_rest() -> None:
    session = _live(["AUSDT", "BUSDT"], at_s=10.0)
    requests = _requests(session.want(["BUSDT", "CUSDT"], 20.0))
    assert [(request["method"], request["params"]) for request in requests] == [
        ("SUBSCRIBE", ["cusdt@aggTrade"]),
        ("UNSUBSCRIBE", ["ausdt@aggTrade"]),
    ]
    assert session.state is State.SUBSCRIBING
    listing = _acknowledge(session, [Send(json.dumps(request)) for request in requests], 20.0)
    (request,) = _requests(listing)
    assert session.replied(Reply(request["id"], _names(["BUSDT", "CUSDT"])), 20.1) == []
    assert _is_live(session)
    assert session.live_at_s == 10.0


def test_wanting_what_it_carries_already_sends_nothing() -> None:
    session = _live(["AUSDT", "BUSDT"], at_s=10.0)
    assert session.want(["BUSDT", "AUSDT"], 20.0) == []
    assert _is_live(session)


def test_what_is_wanted_while_it_subscribes_follows_the_list_as_a_difference() -> None:
    session = _session(["AUSDT", "BUSDT"])
    opening = session.opened(10.0)
    assert session.want(["BUSDT", "CUSDT"], 10.1) == []
    (listing,) = _requests(_acknowledge(session, opening, 10.2))
    more = session.replied(Reply(listing["id"], _names(["AUSDT", "BUSDT"])), 10.3)
    assert [request["params"] for request in _requests(more)] == [
        ["cusdt@aggTrade"],
        ["ausdt@aggTrade"],
    ]
    assert session.state is State.SUBSCRIBING
    (listing,) = _requests([*_acknowledge(session, more, 10.4), *session.tick(12.0)])
    assert session.replied(Reply(listing["id"], _names(["BUSDT", "CUSDT"])), 12.1) == []
    assert _is_live(session)


def test_what_is_wanted_before_the_handshake_is_what_it_subscribes_to() -> None:
    session = _session(["AUSDT"])
    assert session.want(["CUSDT"], 0.5) == []
    (subscribe,) = _requests(session.opened(1.0))
    assert subscribe["params"] == ["cusdt@aggTrade"]


def test_a_connection_without_trades_and_pings_is_stale() -> None:
    session = _live(_symbols(1), at_s=100.0)
    assert session.tick(129.9) == []
    session.saw("S0USDT", 1, 129.0)
    assert session.next_due_s(130.0) == 159.0
    session.last_ping_s = 140.0
    assert session.tick(169.9) == []
    assert session.tick(170.0) == STALE
    assert session.state is State.CLOSING


def test_staleness_can_be_turned_off() -> None:
    session = _live(_symbols(1), at_s=100.0, limits=SessionLimits(stale_after_s=0, probe_every_s=0))
    assert session.tick(10_000.0) == []


def test_the_client_probe_comes_every_so_often_when_asked_for() -> None:
    limits = SessionLimits(stale_after_s=0, probe_every_s=180)
    session = _live(_symbols(1), at_s=100.0, limits=limits)
    assert session.tick(279.9) == []
    assert session.tick(280.0) == [Ping()]
    assert session.tick(280.1) == []
    assert session.tick(460.0) == [Ping()]


def test_a_probe_waits_for_its_place_among_the_frames_of_a_second() -> None:
    limits = SessionLimits(stale_after_s=0, reply_within_s=60, probe_every_s=1)
    session = _session(_symbols(1024), limits)
    assert len(session.opened(100.0)) == 4
    assert session.tick(101.0) == []
    due_s = session.next_due_s(101.0)
    assert due_s == 101.25
    assert Ping() in session.tick(due_s) or Ping() in session.tick(session.next_due_s(due_s))


def test_missing_pings_of_the_server_are_noticed() -> None:
    session = _live(_symbols(1), at_s=100.0)
    assert not session.heartbeat_missing(100.0 + PINGS_MISSING_S - 0.1)
    session.last_ping_s = 120.0
    assert not session.heartbeat_missing(120.0 + PINGS_MISSING_S - 0.1)
    assert session.heartbeat_missing(120.0 + PINGS_MISSING_S)


def test_a_probe_that_is_not_answered_is_a_missing_heartbeat() -> None:
    limits = SessionLimits(stale_after_s=0, reply_within_s=10, probe_every_s=20)
    session = _live(_symbols(1), at_s=100.0, limits=limits)
    assert session.tick(120.0) == [Ping()]
    assert session.heartbeat_missing_at_s == 130.0
    session.ponged()
    assert session.heartbeat_missing_at_s == 100.0 + PINGS_MISSING_S
    assert session.tick(140.0) == [Ping()]
    session.slept(145.0)
    assert session.heartbeat_missing_at_s == 155.0


def test_time_we_did_not_run_is_not_the_peers_silence() -> None:
    session = _session(_symbols(1))
    session.opened(100.0)
    session.slept(200.0)
    assert session.tick(209.9) == []
    assert not session.heartbeat_missing(200.0)
    assert session.tick(210.0) == STALE


def test_it_lacks_an_id_that_was_heard_elsewhere_and_not_here() -> None:
    session = _live(["AUSDT"], at_s=100.0)
    assert session.lacks("AUSDT", 7)
    session.excuse({"AUSDT": 7})
    session.excuse({"AUSDT": 5})
    assert not session.lacks("AUSDT", 7)
    assert session.lacks("AUSDT", 8)
    session.saw("AUSDT", 8, 101.0)
    assert not session.lacks("AUSDT", 8)
    assert (session.first_ids, session.last_ids) == ({"AUSDT": 8}, {"AUSDT": 8})
    session.saw("AUSDT", 9, 101.0)
    assert (session.first_ids, session.last_ids) == ({"AUSDT": 8}, {"AUSDT": 9})


def test_close_is_said_once() -> None:
    session = _live(_symbols(1), at_s=1.0)
    assert session.close("shutdown", 2.0) == [Close(1000, "shutdown")]
    assert session.close("server_shutdown", 2.0) == []
    assert session.close_reason == "shutdown"


def test_a_peer_that_does_not_take_part_in_the_closing_is_dropped() -> None:
    session = _live(_symbols(1), at_s=1.0)
    session.close("shutdown", 10.0)
    assert session.next_due_s(10.0) == 10.0 + CLOSE_TIMEOUT_S
    assert session.tick(11.9) == []
    assert session.tick(12.0) == [Abort()]
    # Whoever waits for the next due time must not be sent round in the same instant.
    assert session.tick(12.0) == []
    assert session.next_due_s(12.0) == 12.0 + CLOSE_TIMEOUT_S


def test_a_handshake_that_ends_after_it_was_given_up_is_closed_at_once() -> None:
    session = _session(_symbols(1))
    assert session.close("shutdown", 1.0) == []
    assert session.tick(60.0) == []
    assert session.opened(61.0) == [Close(1000, "shutdown")]
    assert session.state is State.CLOSING
    assert session.next_due_s(61.0) == 61.0 + CLOSE_TIMEOUT_S
