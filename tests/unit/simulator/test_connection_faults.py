from collections import Counter
from typing import Any

import msgspec
import pytest

from k2.market import StreamKind
from k2.simulator.connection_faults import EXTRA_JSON, ConnectionFaults
from k2.simulator.fault_orders import FaultOrders
from k2.simulator.rows import TapeRow
from k2.simulator.stream_faults import AnyStreamFault

AGG, FILL = StreamKind.AGG_TRADE, StreamKind.TRADE


def _fault(name: str, **fields: Any) -> Any:
    return msgspec.convert({"fault": name, **fields}, AnyStreamFault)


def _row(row_id: int, symbol: str = "BTCUSDT", kind: StreamKind = AGG) -> TapeRow:
    return TapeRow(symbol, kind, row_id, "1.5", "2.0", 10 * row_id, 10 * row_id + 9, 7, 8, True)


def _sent(faults: ConnectionFaults, rows: list[TapeRow], now_s: float = 0.0) -> list[int]:
    return [event.row.row_id for event in faults.events(rows, now_s)]


def _with(*faults: Any, now_s: float = 0.0) -> tuple[ConnectionFaults, Counter[str]]:
    counts: Counter[str] = Counter()
    in_force = ConnectionFaults(counts)
    for number, fault in enumerate(faults, start=1):
        in_force.order(number, fault, now_s=now_s)
    return in_force, counts


def test_without_faults_rows_go_out_as_they_are() -> None:
    faults, _ = _with()
    assert not faults.touches_events()
    assert _sent(faults, [_row(1), _row(2)]) == [1, 2]


def test_skip_takes_the_next_events_over_several_batches() -> None:
    faults, counts = _with(_fault("skip", count=3))
    assert _sent(faults, [_row(1), _row(2)]) == []
    assert _sent(faults, [_row(3), _row(4)]) == [4]
    assert not faults.touches_events()
    assert counts == {"fault skip": 3}


def test_a_fault_strikes_only_its_symbol_and_stream_kind() -> None:
    rows = [_row(1), _row(2, "ETHUSDT"), _row(3, kind=FILL)]
    faults, _ = _with(_fault("skip", symbol="ETHUSDT", count=9))
    assert _sent(faults, rows) == [1, 3]
    faults, _ = _with(_fault("skip", stream="trade", count=9))
    assert _sent(faults, rows) == [1, 2]


def test_duplicate_sends_each_event_twice() -> None:
    faults, _ = _with(_fault("duplicate", count=2))
    assert _sent(faults, [_row(1), _row(2), _row(3)]) == [1, 1, 2, 2, 3]


def test_reorder_reverses_blocks_and_holds_one_until_it_is_full() -> None:
    faults, _ = _with(_fault("reorder", symbol="BTCUSDT", count=5, block=3))
    assert _sent(faults, [_row(1), _row(2), _row(100, "ETHUSDT")]) == [100]
    assert _sent(faults, [_row(3), _row(4)]) == [3, 2, 1]
    # The last block is shorter.
    assert _sent(faults, [_row(5), _row(6)]) == [5, 4, 6]
    assert not faults.touches_events()


def test_cancelling_lets_out_what_was_held() -> None:
    faults, _ = _with(_fault("reorder", count=5, block=5), _fault("skip", count=1, symbol="X"))
    assert _sent(faults, [_row(1), _row(2)]) == []
    assert faults.cancel(2) == []
    assert [event.row.row_id for event in faults.cancel(1)] == [2, 1]
    assert faults.describe() == []


def test_silent_lasts_for_its_time_or_until_it_is_cancelled() -> None:
    faults, _ = _with(_fault("silent", symbol="BTCUSDT", duration_s=2), now_s=10)
    assert _sent(faults, [_row(1), _row(2, "ETHUSDT")], 11.9) == [2]
    assert _sent(faults, [_row(3)], 12) == [3]
    faults, _ = _with(_fault("silent"))
    assert _sent(faults, [_row(1)], 10**6) == []
    faults.cancel(None)
    assert _sent(faults, [_row(2)], 10**6) == [2]


@pytest.mark.parametrize(
    ("offset", "agg_id", "first_id"), [(10**9, 10**9 + 5, 10**9 + 50), (-(10**9), 0, 0)]
)
def test_an_absurd_id_follows_the_true_event(offset: int, agg_id: int, first_id: int) -> None:
    faults, _ = _with(_fault("absurd_id", offset=offset))
    events = faults.events([_row(5), _row(6)], 0.0)
    assert [event.row.row_id for event in events] == [5, agg_id, 6]
    absurd = events[1].row
    assert absurd.first_trade_id == first_id
    assert absurd.first_trade_id <= absurd.last_trade_id
    assert (absurd.price, absurd.quantity) == (_row(5).price, _row(5).quantity)


def test_an_extra_field_is_added_and_nothing_else_changes() -> None:
    faults, _ = _with(_fault("extra_field"))
    events = faults.events([_row(1), _row(2)], 0.0)
    assert [event.extra_json for event in events] == [EXTRA_JSON, ""]
    assert [event.row for event in events] == [_row(1), _row(2)]


def test_faults_apply_in_the_order_they_came() -> None:
    faults, _ = _with(_fault("skip", count=1), _fault("duplicate", count=1))
    assert _sent(faults, [_row(1), _row(2), _row(3)]) == [2, 2, 3]
    faults, _ = _with(_fault("duplicate", count=1), _fault("skip", count=1))
    assert _sent(faults, [_row(1), _row(2)]) == [1, 2]


def test_a_fault_without_an_end_never_ends() -> None:
    faults, counts = _with(_fault("stall"), _fault("half_open"), _fault("mute_pings", duration_s=1))
    faults.expire(10**9)
    assert faults.stalled(10**9)
    assert faults.half_open(10**9)
    assert not faults.pings_muted(1)
    assert not faults.touches_events()
    assert counts == {"fault stall": 1, "fault half_open": 1, "fault mute_pings": 1}


@pytest.mark.parametrize(
    "wrong",
    [
        {"fault": "explode"},
        {"fault": "skip", "count": 0},
        {"fault": "skip", "duration_s": 1},
        {"fault": "skip", "which": "both"},
        {"fault": "skip", "stream": "depth"},
        {"fault": "silent", "duration_s": 0},
        {"fault": "reorder", "block": 1},
        {"fault": "malformed", "count": 10**6},
        {"fault": "refuse", "status": 200},
        {"fault": "void", "which": "all"},
        {"which": "all"},
    ],
)
def test_a_wrong_order_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(wrong, AnyStreamFault)


def test_void_rows_are_made_of_the_next_aggregates() -> None:
    counts: Counter[str] = Counter()
    orders = FaultOrders(counts)
    orders.take(_fault("void", symbol="BTCUSDT", count=2), now_s=0)
    rows = [_row(1, kind=FILL), _row(2, "ETHUSDT"), _row(3)]
    published = orders.published(rows)
    assert published[:2] == rows[:2]
    void = published[2]
    assert (void.price, void.quantity, void.first_trade_id, void.last_trade_id) == (
        "0",
        "0",
        -1,
        -1,
    )
    assert (void.row_id, void.trade_ts_us) == (3, rows[2].trade_ts_us)
    assert orders.published([_row(4), _row(5)])[1] == _row(5)
    assert orders.describe(0) == []
    assert counts == {"fault void": 2}


def test_refusal_ends_and_a_newcomer_suffers_only_what_is_left_of_a_lasting_fault_of_all() -> None:
    orders = FaultOrders(Counter())
    orders.take(_fault("refuse", status=429, duration_s=5), now_s=0)
    orders.take(_fault("skip", count=5), now_s=0)
    orders.take(_fault("stall", which="oldest"), now_s=0)
    orders.take(_fault("silent", duration_s=10), now_s=0)
    orders.take(_fault("mute_pings"), now_s=0)
    assert orders.refusal(4.9) == 429
    assert orders.refusal(5) is None
    assert orders.for_newcomer(4) == [
        (4, _fault("silent", duration_s=6)),
        (5, _fault("mute_pings")),
    ]
    orders.cancel(5)
    assert orders.for_newcomer(10) == []
