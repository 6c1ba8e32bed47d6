import copy
from collections.abc import Callable

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from k2.binance import session as session_module
from k2.binance.leg import (
    MANUAL,
    OVERLAP_LOOK_S,
    OVERLAP_MAX_S,
    SCHEDULED,
    SESSIONS_MAX,
    SILENT_AFTER_S,
    Leg,
    LegLimits,
    Open,
    Replaced,
)
from k2.binance.session import CLOSE_TIMEOUT_S, PINGS_MISSING_S, Close, SessionLimits, State
from k2.errors import StopError
from k2.market import StreamKind
from unit.binance.leg_world import LegWorld

NEVER_S = 1e9
CALM = SessionLimits(stale_after_s=0, probe_every_s=0)
"""Neither staleness nor probes, where they would only get in the way."""


def _world(
    *symbols: str,
    age_s: float = NEVER_S,
    first_age_s: float = NEVER_S,
    session: SessionLimits = CALM,
    draw: Callable[[], float] = lambda: 0.0,
) -> LegWorld:
    limits = LegLimits(connection_age_max_s=age_s, session=session)
    leg = Leg(
        "a", symbols or ("AUSDT",), StreamKind.AGG_TRADE, limits, first_age_s=first_age_s, draw=draw
    )
    return LegWorld(leg, now_s=1000.0)


def _live_world(
    *symbols: str,
    age_s: float = NEVER_S,
    first_age_s: float = NEVER_S,
    session: SessionLimits = CALM,
    draw: Callable[[], float] = lambda: 0.0,
) -> LegWorld:
    world = _world(*symbols, age_s=age_s, first_age_s=first_age_s, session=session, draw=draw)
    world.tick()
    world.make_live(world.opening[0])
    return world


def _run_pinged(world: LegWorld, seconds: float) -> None:
    """Let time pass with the server's pings."""
    until_s = world.now_s + seconds
    while world.now_s < until_s:
        world.ping()
        world.run(min(20.0, until_s - world.now_s))


def _rotating_world(*symbols: str) -> LegWorld:
    """Two live connections that have not overlapped: each symbol has traded once before."""
    world = _live_world(*symbols)
    for symbol in world.leg.symbols:
        world.trade(symbol)
    world.leg.rotate(MANUAL, world.now_s)
    world.tick()
    world.make_live(world.opening[0])
    return world


# Opening, and opening again.


def test_it_opens_one_connection_and_waits_for_the_outcome() -> None:
    world = _world()
    assert world.tick() == [(world.newcomer, Open())]
    assert world.tick() == []
    assert world.leg.next_due_s(world.now_s) == float("inf")
    assert not world.leg.live


def test_the_first_connection_to_open_is_the_current_one() -> None:
    world = _world()
    world.tick()
    session = world.opening[0]
    world.accept(session)
    assert (world.leg.current, world.leg.newcomer) == (session, None)
    assert not world.leg.live
    while session.state is not State.LIVE:
        world.answer(session)
    assert world.leg.live
    world.now_s += 7
    assert world.leg.age_s(world.now_s) == 7


def _waits(world: LegWorld, *, data: bool, times: int) -> list[float]:
    """Be closed after opening, and return how long the leg then waits; ``times`` times."""
    waits = list[float]()
    for _ in range(times):
        (session,) = world.opening
        world.accept(session)
        if data:
            session.saw("AUSDT", 1, world.now_s)
        world.end(session)
        ended_s = world.now_s
        assert world.opening == []
        while not world.opening:
            world.run(0.01)
        waits.append(round(world.now_s - ended_s))
    return waits


def test_backoff_grows_while_connections_bring_no_data_even_when_closed_cleanly() -> None:
    world = _world(draw=lambda: 0.999999)
    world.tick()
    assert _waits(world, data=False, times=9) == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_backoff_starts_over_only_after_data_flowed() -> None:
    world = _world(draw=lambda: 0.999999)
    world.tick()
    _waits(world, data=False, times=5)
    assert _waits(world, data=True, times=3) == [1, 1, 1]
    # Data of an earlier connection does not count for the next one.
    assert _waits(world, data=False, times=3) == [2, 4, 8]


def test_backoff_is_drawn_from_all_of_its_range() -> None:
    draws = iter([0.0, 0.25, 0.5, 0.75])
    world = _world(draw=lambda: next(draws, 0.0))
    world.tick()
    waits = list[float]()
    for _ in range(4):
        world.end(world.opening[0])
        waits.append(world.leg.retry_at_s - world.now_s)
        world.run(waits[-1])
    assert waits == [1.0, 1.25, 2.5, 6.25]


def test_it_never_gives_up() -> None:
    world = _world(draw=lambda: 0.999999)
    world.tick()
    for _ in range(2000):
        world.end(world.opening[0])
        world.run(60.0)
        assert len(world.opening) == 1


def test_more_streams_than_one_connection_carries_are_refused() -> None:
    world = _world(*(f"S{number}USDT" for number in range(1024)))
    with pytest.raises(StopError, match="1025 streams"):
        world.leg.carry([f"S{number}USDT" for number in range(1025)], world.now_s)
    with pytest.raises(StopError, match="1025 streams"):
        _world(*(f"S{number}USDT" for number in range(1025)))


# Rotation.


def test_a_connection_of_age_is_replaced_and_the_first_one_at_its_own() -> None:
    world = _live_world(age_s=1000.0, first_age_s=400.0)
    _run_pinged(world, 399.9)
    assert world.opening == []
    _run_pinged(world, 0.1)
    world.make_live(world.opening[0])
    assert world.replaced == [Replaced(SCHEDULED, overlapped=True)]
    _run_pinged(world, 999.9)
    assert world.opening == []
    _run_pinged(world, 0.2)
    assert len(world.opening) == 1


def test_the_age_is_jittered_downwards() -> None:
    world = _live_world(age_s=1000.0, draw=lambda: 0.5)
    _run_pinged(world, 949.9)
    assert world.opening == []
    _run_pinged(world, 0.2)
    assert len(world.opening) == 1


def test_the_old_connection_stays_until_each_symbol_has_overlapped() -> None:
    world = _rotating_world("AUSDT", "BUSDT")
    old, new = world.current, world.newcomer
    assert new.state is State.LIVE
    world.run(5)
    world.trade("AUSDT")
    world.run(5)
    assert world.leg.current is old
    assert world.closes == []
    world.trade("BUSDT")
    world.run(OVERLAP_LOOK_S)
    assert world.leg.current is new
    assert world.replaced == [Replaced(MANUAL, overlapped=True)]
    assert world.closes == [(old, Close(1000, MANUAL))]
    assert old.replaced
    assert world.leg.live


def test_an_id_the_old_one_missed_does_not_count_as_overlap() -> None:
    world = _rotating_world("AUSDT")
    old = world.current
    world.trade("AUSDT", deaf=world.newcomer)
    world.trade("AUSDT", deaf=world.newcomer)
    new_first = world.trade("AUSDT", deaf=old)
    assert old.last_ids["AUSDT"] == new_first - 1
    world.run(OVERLAP_LOOK_S)
    assert [replaced.overlapped for replaced in world.replaced] == [True]

    world = _rotating_world("AUSDT")
    old = world.current
    world.trade("AUSDT", deaf=world.newcomer)
    world.next_ids["AUSDT"] += 1  # one id that neither has heard
    world.trade("AUSDT", deaf=old)
    world.run(OVERLAP_MAX_S - 1)
    assert world.leg.current is old


def test_quiet_symbols_do_not_hold_the_rotation_up_for_ever() -> None:
    world = _rotating_world("AUSDT", "BUSDT")
    old = world.current
    world.trade("AUSDT")
    world.run(OVERLAP_MAX_S - 0.2)
    assert world.leg.current is old
    world.run(0.2)
    assert world.replaced == [Replaced(MANUAL, overlapped=False)]
    assert world.leg.current is not old


def test_symbols_that_are_carried_no_more_need_no_overlap() -> None:
    world = _rotating_world("AUSDT", "BUSDT")
    world.trade("AUSDT")
    world.perform(world.leg.carry(["AUSDT"], world.now_s))
    new = world.newcomer
    while new.state is not State.LIVE:
        world.answer(new)
    world.run(OVERLAP_LOOK_S)
    assert world.replaced == [Replaced(MANUAL, overlapped=True)]


def test_a_newcomer_that_fails_leaves_the_old_one_alone_and_is_tried_again() -> None:
    world = _live_world()
    old = world.current
    world.leg.rotate(MANUAL, world.now_s)
    world.tick()
    world.end(world.opening[0])
    assert world.opening == []
    world.run(1.0)
    world.accept(world.opening[0])
    world.refuse(world.open[1])  # and one that opens, and is refused
    world.end(world.open[1])
    world.run(1.0)
    assert world.leg.current is old
    assert old.state is State.LIVE
    assert len(world.opening) == 1
    world.make_live(world.opening[0])
    world.run(OVERLAP_LOOK_S)
    assert world.replaced == [Replaced(MANUAL, overlapped=True)]


def test_who_asks_for_a_rotation_is_told_whether_it_begins() -> None:
    world = _world()
    assert not world.leg.rotate(MANUAL, world.now_s), "there is nothing to replace yet"
    world = _live_world()
    assert world.leg.rotate(MANUAL, world.now_s)
    assert not world.leg.rotate(SCHEDULED, world.now_s), "one was asked for"
    world.tick()
    world.now_s += 1
    assert not world.leg.rotate(SCHEDULED, world.now_s), "one is under way"
    world.make_live(world.opening[0])
    world.run(OVERLAP_LOOK_S)
    assert world.replaced == [Replaced(MANUAL, overlapped=True)]
    assert world.leg.rotate(MANUAL, world.now_s), "that one is over"
    world = _live_world()
    world.leg.stop(world.now_s)
    assert not world.leg.rotate(MANUAL, world.now_s), "the leg ends"


def test_a_newcomer_that_is_open_takes_over_from_one_that_dies() -> None:
    world = _live_world(age_s=1000.0)
    world.leg.rotate(MANUAL, world.now_s)
    world.tick()
    new = world.opening[0]
    world.accept(new)
    world.end(world.current)
    assert (world.leg.current, world.leg.newcomer) == (new, None)
    while new.state is not State.LIVE:
        world.answer(new)
    assert world.replaced == []
    _run_pinged(world, 999.9)
    assert world.opening == []
    _run_pinged(world, 0.2)
    assert len(world.opening) == 1


def test_a_newcomer_still_opening_is_waited_for_when_the_old_one_dies() -> None:
    world = _live_world()
    world.leg.rotate(MANUAL, world.now_s)
    world.tick()
    new = world.opening[0]
    world.end(world.current)
    world.run(30.0)
    assert world.opening == [new]
    world.accept(new)
    assert world.leg.current is new


def test_a_server_that_leaves_is_replaced_at_once() -> None:
    world = _live_world()
    old = world.current
    world.leg.server_leaving(old, world.now_s)
    assert world.leg.next_due_s(world.now_s) <= world.now_s
    world.tick()
    world.make_live(world.opening[0])
    world.run(OVERLAP_LOOK_S)
    assert world.replaced == [Replaced("server_shutdown", overlapped=True)]
    assert world.closes == [(old, Close(1000, "server_shutdown"))]


def test_a_connection_already_left_may_announce_its_end() -> None:
    world = _rotating_world()
    old = world.current
    world.trade("AUSDT")
    world.run(OVERLAP_LOOK_S)
    world.leg.server_leaving(old, world.now_s)
    world.tick()
    assert world.opening == []


def test_a_connection_the_server_pings_no_more_is_replaced() -> None:
    world = _live_world()
    world.run(30.0)
    world.ping()
    world.run(PINGS_MISSING_S - 0.1)
    assert world.opening == []
    world.run(0.1)
    world.make_live(world.opening[0])
    world.run(OVERLAP_LOOK_S)
    assert world.replaced == [Replaced("pong_timeout", overlapped=True)]


def test_the_next_rotation_has_its_own_reason() -> None:
    world = _live_world(age_s=1000.0)
    for reason in (MANUAL, SCHEDULED):
        if reason is MANUAL:
            world.leg.rotate(MANUAL, world.now_s)
        while not world.opening:
            world.ping()
            world.run(10.0)
        world.make_live(world.opening[0])
        world.run(OVERLAP_LOOK_S)
        world.end(world.closes[-1][0])
    assert [replaced.reason for replaced in world.replaced] == [MANUAL, SCHEDULED]


# Silence.


def test_the_successor_of_a_stale_connection_does_not_wait_for_the_handshake() -> None:
    world = _live_world(session=SessionLimits(stale_after_s=30.0, probe_every_s=0))
    stale = world.current
    world.run(30.0)
    assert world.closes == [(stale, Close(1000, "health_check_timeout"))]
    assert world.leg.leaving == [stale]
    world.run(1.0)
    (new,) = world.opening
    world.make_live(new)
    assert world.leg.live
    assert world.aborted == []
    world.run(CLOSE_TIMEOUT_S - 1.0)
    assert world.aborted == [stale]
    world.end(stale)
    assert world.leg.leaving == []
    assert world.leg.current is new


def test_connections_that_do_not_end_do_not_pile_up() -> None:
    world = _live_world()
    world.leg.rotate(MANUAL, world.now_s)
    world.tick()
    for _ in range(SESSIONS_MAX - 1):
        world.accept(world.opening[0])
        world.refuse(world.open[-1])
        world.run(1.0)
    assert world.opening == []
    assert len(world.open) == SESSIONS_MAX
    world.run(60.0)
    assert world.opening == []
    world.end(world.open[-1])
    assert len(world.opening) == 1


def test_a_stream_others_hear_and_this_one_does_not_is_deaf() -> None:
    world = _live_world("AUSDT", "BUSDT")
    heard = {"AUSDT": 7, "BUSDT": 9}
    world.current.excuse(heard)
    assert world.leg.notice(heard, world.now_s) == []
    heard["AUSDT"] = 8
    world.trade("BUSDT")
    assert world.leg.notice(heard, world.now_s) == []
    world.now_s += SILENT_AFTER_S - 0.1
    assert world.leg.notice(heard, world.now_s) == []
    world.now_s += 0.1
    assert world.leg.notice(heard, world.now_s) == ["AUSDT"]
    world.tick()
    world.make_live(world.opening[0])
    world.run(OVERLAP_MAX_S)
    assert [replaced.reason for replaced in world.replaced] == ["health_check_timeout"]


def test_an_id_that_comes_late_is_heard_all_the_same() -> None:
    world = _live_world()
    assert world.leg.notice({"AUSDT": 8}, world.now_s) == []
    world.now_s += SILENT_AFTER_S - 0.1
    world.current.saw("AUSDT", 8, world.now_s)
    assert world.leg.notice({"AUSDT": 8}, world.now_s) == []
    assert world.leg.notice({"AUSDT": 9}, world.now_s) == []
    world.now_s += SILENT_AFTER_S - 0.1
    assert world.leg.notice({"AUSDT": 9}, world.now_s) == []


def test_a_new_connection_is_not_blamed_for_what_the_one_before_missed() -> None:
    world = _live_world()
    assert world.leg.notice({"AUSDT": 8}, world.now_s) == []
    world.now_s += SILENT_AFTER_S - 1
    world.end(world.current)
    world.run(1.0)
    world.make_live(world.opening[0])
    assert world.leg.notice({"AUSDT": 8}, world.now_s + 0.1) == []
    assert world.leg.notice({"AUSDT": 8}, world.now_s + SILENT_AFTER_S) == []
    assert world.leg.notice({"AUSDT": 8}, world.now_s + SILENT_AFTER_S + 0.1) == ["AUSDT"]


def test_a_symbol_carried_again_is_not_blamed_for_the_time_in_between() -> None:
    world = _live_world("AUSDT", "BUSDT")
    heard = {"BUSDT": 8}
    assert world.leg.notice(heard, world.now_s) == []
    for symbols in (["AUSDT"], ["AUSDT", "BUSDT"]):
        world.perform(world.leg.carry(symbols, world.now_s))
        while world.current.state is not State.LIVE:
            world.answer(world.current)
        world.now_s += SILENT_AFTER_S
        assert world.leg.notice(heard, world.now_s) == []


def test_a_leg_that_merely_trails_is_not_deaf() -> None:
    world = _live_world("AUSDT")
    world.current.excuse({"AUSDT": 99})
    heard_id = 100
    for _ in range(20):
        # 100 trades a second, each of which comes here 50 ms after the other leg's copy.
        for source_id in range(heard_id, heard_id + 500):
            world.current.saw("AUSDT", source_id - 5, world.now_s)
        heard_id += 500
        assert world.leg.notice({"AUSDT": heard_id - 1}, world.now_s) == []
        world.now_s += 5.0


def test_deafness_is_not_looked_for_while_a_rotation_is_under_way() -> None:
    world = _rotating_world()
    for _ in range(2):
        assert world.leg.notice({"AUSDT": 1000}, world.now_s) == []
        world.now_s += SILENT_AFTER_S


def test_time_we_did_not_run_is_not_the_peers_silence() -> None:
    world = _live_world(session=SessionLimits(stale_after_s=30.0, probe_every_s=0))
    world.now_s += 100.0
    world.leg.slept(world.now_s)
    assert world.tick() == []
    assert world.leg.live


# What it carries, and the end.


def test_other_symbols_are_asked_for_as_a_difference_on_every_connection() -> None:
    world = _rotating_world("AUSDT", "BUSDT")
    world.perform(world.leg.carry(["BUSDT", "CUSDT"], world.now_s))
    assert world.leg.symbols == ["BUSDT", "CUSDT"]
    for session in (world.current, world.newcomer):
        asked = [(request["method"], request["params"]) for request in world.requests[session]]
        assert asked == [("SUBSCRIBE", ["cusdt@aggTrade"]), ("UNSUBSCRIBE", ["ausdt@aggTrade"])]


def test_what_is_to_be_carried_is_carried_by_the_next_connection_too() -> None:
    world = _live_world()
    world.perform(world.leg.carry(["CUSDT"], world.now_s))
    world.end(world.current)
    world.run(1.0)
    world.make_live(world.opening[0])
    assert world.streams[world.current] == {"cusdt@aggTrade"}


def test_stop_closes_every_connection_and_for_good() -> None:
    world = _rotating_world()
    both = [world.current, world.newcomer]
    world.perform(world.leg.stop(world.now_s))
    assert world.closes == [(session, Close(1000, "shutdown")) for session in both]
    assert not world.leg.ended
    world.run(CLOSE_TIMEOUT_S)
    assert world.aborted == both
    for session in both:
        world.end(session)
    assert world.leg.ended
    world.run(1000.0)
    assert world.opening == []


def test_stop_before_a_connection_ends_at_once() -> None:
    world = _world()
    assert world.leg.stop(world.now_s) == []
    assert world.leg.ended
    assert world.tick() == []


def test_a_handshake_that_ends_after_stop_does_not_bring_the_leg_back() -> None:
    world = _world()
    world.tick()
    (session,) = world.opening
    assert world.leg.stop(world.now_s) == []
    assert not world.leg.ended
    world.accept(session)
    assert world.closes == [(session, Close(1000, "shutdown"))]
    world.end(session)
    assert world.leg.ended


# Whatever happens.

SYMBOLS = tuple(f"{letter}USDT" for letter in "ABCDEF")
ROTATIONS = {SCHEDULED, MANUAL, "server_shutdown", "pong_timeout"}
HELPFUL = ("accept", "answer", "settle", "settle", "trade", "trade all", "ping")
HARMFUL = ("refuse", "end", "fail opening", "shutdown", "rotate", "carry", "deaf", "sleep")
STEPS = st.lists(
    st.tuples(
        # What helps comes more often: a leg that is never live proves little.
        st.sampled_from([*HELPFUL, *HELPFUL, *HARMFUL]),
        st.integers(0, 5),
        st.sampled_from([0.0, 0.01, 0.3, 1.0, 1.0, 5.0, 31.0, 80.0]),
    ),
    min_size=20,
    max_size=60,
)


class _CheckedWorld(LegWorld):
    """A world in which what must hold whatever happens is checked after each event."""

    pinged = True

    def run(self, seconds: float) -> None:
        until_s = self.now_s + seconds
        while self.pinged and until_s - self.now_s > 20.0:
            super().run(20.0)
            self.ping()
        super().run(until_s - self.now_s)

    def tick(self) -> list[tuple[object, object]]:  # type: ignore[override]
        current, newcomer = self.leg.current, self.leg.newcomer
        was_live = newcomer is not None and newcomer.state is State.LIVE
        actions = super().tick()
        for session, action in actions:
            if isinstance(action, Replaced):
                assert session is newcomer
                assert was_live
                event(f"replaced, overlapped: {action.overlapped}")
            elif isinstance(action, Close) and (session.replaced or action.reason in ROTATIONS):
                assert session is current
                assert self.leg.current is newcomer
                assert self.current.state is State.LIVE
        assert len(self.open) + len(self.opening) <= SESSIONS_MAX
        assert len(self.leg.sessions()) == len(self.open) + len(self.opening)
        self._check_quiet_until_due()
        return list(actions)

    def _check_quiet_until_due(self) -> None:
        """Whoever sleeps until the next due time misses nothing."""
        due_s = min(self.leg.next_due_s(self.now_s), self.now_s + 1e5)
        for part in (0.0, 0.99):
            at_s = self.now_s + part * (due_s - self.now_s)
            if self.now_s <= at_s < due_s:
                sleeper = copy.deepcopy(self.leg)
                assert sleeper.tick(at_s) == []

    def bury_aborted(self) -> None:
        """A socket that was aborted is gone soon, not at once."""
        for session in self.aborted:
            if session in self.open:
                self.end(session)

    def happen(self, what: str, which: int) -> None:
        self.bury_aborted()
        busy = [session for session in self.open if self.requests[session]]
        symbol = SYMBOLS[which % len(SYMBOLS)]
        if what == "accept" and self.opening:
            self.accept(self.opening[0])
        elif what == "answer" and busy:
            self.answer(busy[which % len(busy)])
        elif what == "settle":
            for session in list(self.opening):
                self.accept(session)
            for session in list(self.open):
                while session in self.open and self.requests[session]:
                    self.answer(session)
        elif what == "refuse" and busy:
            self.refuse(busy[which % len(busy)])
        elif what == "end" and self.open:
            self.end(self.open[which % len(self.open)])
        elif what == "fail opening" and self.opening:
            self.end(self.opening[0])
        elif what == "trade":
            self.trade(symbol)
        elif what == "trade all":
            for each in SYMBOLS:
                self.trade(each)
        elif what == "ping":
            self.ping()
        elif what == "shutdown" and self.open:
            self.leg.server_leaving(self.open[which % len(self.open)], self.now_s)
        elif what == "rotate":
            self.leg.rotate(MANUAL, self.now_s)
        elif what == "carry":
            wanted = SYMBOLS[: which % len(SYMBOLS) + 1]
            self.perform(self.leg.carry(wanted, self.now_s))
        elif what == "deaf":
            self.leg.notice(self.next_ids, self.now_s)
        elif what == "sleep":
            self.now_s += 50.0
            self.leg.slept(self.now_s)
        self.tick()


LIMITS = st.builds(
    LegLimits,
    delay_min_s=st.sampled_from([0.1, 1.0]),
    delay_max_s=st.sampled_from([1.0, 60.0]),
    connection_age_max_s=st.sampled_from([70.0, 1e6]),
    session=st.builds(
        SessionLimits,
        stale_after_s=st.sampled_from([0.0, 30.0]),
        probe_every_s=st.sampled_from([0.0, 0.7, 20.0]),
    ),
)


@settings(max_examples=150, deadline=None)
@given(steps=STEPS, limits=LIMITS, draw=st.sampled_from([0.0, 0.5, 0.99]), pinged=st.booleans())
def test_nothing_live_is_given_up_for_what_is_not_and_sleeping_until_due_misses_nothing(
    steps: list[tuple[str, int, float]], limits: LegLimits, draw: float, pinged: bool
) -> None:
    leg = Leg("a", SYMBOLS, StreamKind.AGG_TRADE, limits, first_age_s=40.0, draw=lambda: draw)
    world = _CheckedWorld(leg, now_s=1000.0)
    world.pinged = pinged
    with pytest.MonkeyPatch.context() as patched:
        # More frames than may go at once, without a thousand symbols.
        patched.setattr(session_module, "NAMES_PER_SUBSCRIBE_MAX", 1)
        world.tick()
        world.make_live(world.opening[0])
        for what, which, seconds in steps:
            world.happen(what, which)
            world.run(seconds)
    world.perform(leg.stop(world.now_s))
    for session in list(world.opening):
        world.end(session)
    world.run(2 * CLOSE_TIMEOUT_S)
    world.bury_aborted()
    assert leg.ended
    assert world.open == []
