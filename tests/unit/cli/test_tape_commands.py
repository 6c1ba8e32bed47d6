"""``k2 gaps``, ``k2 backfill``, ``k2 positions``: what they print."""

import json
from collections.abc import Iterator

import pytest

from k2.cli.backfill import backfill
from k2.cli.gaps import gaps
from k2.cli.output import Output
from k2.cli.positions import positions_show
from k2.errors import RejectError
from k2.ingestion import backfill_order, gap_list, positions_look
from k2.ingestion.backfill_order import Order, Progress, Stage
from k2.ingestion.gap_list import GapLine, GapList, GapState
from k2.ingestion.positions_look import ShardShown
from k2.kafka.position import (
    BackfillRequest,
    Identity,
    OpenGap,
    ShardPosition,
    ShardRecord,
    SymbolPosition,
)
from k2.market import GapClass, IdRange

X, TS_US = "BTCUSDT", 1_767_225_600_000_000
JSON = Output(json=True)


def line(first_id: int, last_id: int, state: GapState, repaired_ts_us: int | None) -> GapLine:
    ids = last_id - first_id + 1
    missing = GapClass.MISSING
    return GapLine(X, first_id, last_id, ids, missing, "r", TS_US, state, repaired_ts_us)


def test_gaps_are_listed_with_their_state_and_the_open_ids_in_all(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [line(3, 4, GapState.OPEN, None), line(5, 5, GapState.REPAIRED, TS_US + 60_000_000)]
    monkeypatch.setattr(gap_list, "list_gaps", lambda *_a, **_k: GapList(lines, 2))
    assert gaps() == 0
    out = capsys.readouterr().out
    assert "3 ids declared, 2 open" in out
    assert "2026-01-01 00:01:00Z" in out
    assert gaps(output=JSON) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["open_ids"] == 2
    assert [one["state"] for one in told["gaps"]] == ["open", "repaired"]
    assert told["gaps"][1]["repaired_ts_us"] == TS_US + 60_000_000


def test_no_gaps_is_good_news_and_exit_0(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gap_list, "list_gaps", lambda *_a, **_k: GapList([], 0))
    assert gaps() == 0
    assert capsys.readouterr().out == "0 ids declared, 0 open\n"


def test_positions_show_ends_gaps_backfills_and_requests(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    position = ShardPosition(
        {X: SymbolPosition(901, 900, 500)},
        (OpenGap(X, IdRange(600, 604), TS_US),),
        {X: 100, "ADAUSDT": 5},
    )
    identity = Identity("BINANCE", "production", "aggTrade", {}, 2, [X])
    requests = (BackfillRequest("ETHUSDT", 7, "r1"),)
    shown = [
        ShardShown(0, ShardRecord(identity, position, requests)),
        ShardShown(1, ShardRecord(None, None)),
    ]
    monkeypatch.setattr(positions_look, "show_positions", lambda _settings: shown)
    assert positions_show() == 0
    out = capsys.readouterr().out
    assert all(word in out for word in ("first id", "500", "900", "901", "open gaps"))
    assert "backfill of BTCUSDT runs, down to id 100" in out
    assert "backfill of ADAUSDT, down to id 5, waits: ADAUSDT is not recorded now" in out
    assert "backfill of ETHUSDT is asked for, down to id 7" in out
    assert "shard 1: nothing recorded yet" in out
    positions_show(output=JSON)
    record = json.loads(capsys.readouterr().out)[0]["record"]
    assert record["position"]["symbols"][X] == {"next_id": 901, "last_id": 900, "first_id": 500}
    assert record["position"]["open_gaps"][0]["ids"] == {"first_id": 600, "last_id": 604}
    assert record["requests"][0]["from_id"] == 7


ORDER = Order(BackfillRequest(X, 100, "r1"), shard=0, offset=41, began_at=500, asked_for=100)


def progress(stage: Stage, first_id: int) -> Progress:
    return Progress(X, 100, stage, first_id, 500 - first_id, 400, "r1")


def ordered(monkeypatch: pytest.MonkeyPatch, answer: Order | Progress, *seen: Progress) -> None:
    def watch(_settings: object, order: Order) -> Iterator[Progress]:
        assert order is ORDER
        yield from seen

    monkeypatch.setattr(backfill_order, "order_backfill", lambda *_a, **_k: answer)
    monkeypatch.setattr(backfill_order, "watch", watch)


def test_off_a_terminal_a_backfill_is_asked_for_and_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ordered(monkeypatch, ORDER)
    assert backfill(symbol="btcusdt", from_id=100) == 0
    assert "400 ids asked for, down to 100" in capsys.readouterr().out
    backfill(symbol=X, from_id=100, output=JSON)
    told = json.loads(capsys.readouterr().out)
    assert (told["stage"], told["ids_wanted"], told["request_id"]) == ("requested", 400, "r1")


def test_a_backfill_that_is_waited_for_ends_with_where_the_tape_begins(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = [
        progress(Stage.REQUESTED, 500),
        progress(Stage.RUNNING, 300),
        progress(Stage.DONE, 100),
    ]
    ordered(monkeypatch, ORDER, *seen)
    assert backfill(symbol=X, from_id=100, wait=True) == 0
    assert "done, its tape begins at id 100" in capsys.readouterr().out
    assert backfill(symbol=X, from_id=100, wait=True, output=JSON) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["stage"], told["ids_done"], told["ids_wanted"]) == ("done", 400, 400)


def test_a_backfill_nobody_took_up_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    ordered(monkeypatch, ORDER, progress(Stage.REFUSED, 500))
    with pytest.raises(RejectError, match="did not take it up"):
        backfill(symbol=X, from_id=100, wait=True)


def test_ctrl_c_leaves_the_backfill_running_and_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def watch(_settings: object, _order: Order) -> Iterator[Progress]:
        yield progress(Stage.RUNNING, 300)
        raise KeyboardInterrupt

    ordered(monkeypatch, ORDER)
    monkeypatch.setattr(backfill_order, "watch", watch)
    with pytest.raises(KeyboardInterrupt):
        backfill(symbol=X, from_id=100, wait=True)
    assert "goes on without you" in capsys.readouterr().err


def test_nothing_to_do_is_said_and_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    nothing = Progress(X, 600, Stage.NOTHING_TO_DO, 500, 0, 0, None)
    ordered(monkeypatch, nothing)
    assert backfill(symbol=X, from_id=600, wait=True) == 0
    assert "nothing to do, its tape begins at id 500 already" in capsys.readouterr().out


def test_a_wish_for_ids_before_the_exchanges_first_is_said_to_end_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    order = Order(BackfillRequest(X, 100, "r1"), shard=0, offset=41, began_at=500, asked_for=7)
    monkeypatch.setattr(backfill_order, "order_backfill", lambda *_a, **_k: order)
    assert backfill(symbol=X, from_id=7) == 0
    assert "ids begin at 100" in capsys.readouterr().err
    backfill(symbol=X, from_id=7, output=JSON)
    told = json.loads(capsys.readouterr().out)
    assert (told["from_id"], told["asked_for"]) == (100, 7)
    nothing = Progress(X, 7, Stage.NOTHING_TO_DO, 500, 0, 0, None)
    ordered(monkeypatch, nothing)
    backfill(symbol=X, from_id=7)
    assert "the exchange has nothing before" in capsys.readouterr().out
