import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
from structlog.testing import capture_logs

from k2.ingestion.archive_figures import ArchiveFigures, Declared, RecordAccount
from k2.lake.commit_plan import Source
from k2.lake.decoding import Undecodable
from k2.observability import metrics
from k2.tape.coverage import Coverage


def _writer(name: str, coverage: dict[str, list[tuple[int, int]]]) -> Any:
    return SimpleNamespace(
        name=name, snapshots=3, state=SimpleNamespace(coverage=Coverage(coverage))
    )


def _landed(
    rows: pa.Table, *, bad: list[Undecodable], repeated: list[str], rereads: bool = False
) -> Any:
    decoded = SimpleNamespace(rows=rows, undecodable=bad, repeated=repeated)
    return SimpleNamespace(rows=rows.num_rows, decoded=decoded, rereads=rereads)


def test_ids_are_lacking_that_neither_a_row_nor_a_gap_covers() -> None:
    declared = Declared(pa.table({"symbol": ["BTCUSDT"], "first_id": [11], "last_id": [12]}))
    tape = Coverage({"BTCUSDT": [(1, 10), (14, 20), (23, 30)], "ETHUSDT": [(5, 9)]})
    declared.reached(pa.table({"symbol": ["BTCUSDT"] * 2, "source_sequence": [29, 30]}))
    assert declared.lacking(tape) == 1 + 2
    declared.add(
        pa.table({"symbol": ["BTCUSDT", "BTCUSDT"], "first_id": [21, 13], "last_id": [22, 13]})
    )
    assert declared.lacking(tape) == 0


def test_a_repair_that_comes_before_the_trades_around_it_is_no_hole() -> None:
    declared = Declared()
    tape = Coverage({"BTCUSDT": [(1, 10), (50, 50)]})
    assert declared.lacking(tape) == 0, "nothing has come from the tape yet"
    declared.reached(pa.table({"symbol": ["BTCUSDT"], "source_sequence": [10]}))
    assert declared.lacking(tape) == 0, "the archive catches up"
    declared.reached(pa.table({"symbol": ["BTCUSDT"], "source_sequence": [60]}))
    assert declared.lacking(tape) == 39


@pytest.fixture
def fresh() -> Iterator[None]:
    """The figures are the process's: other tests read them too."""
    yield
    metrics.topic_duplicates.set(0)
    metrics.promise_broken.set(0)


@pytest.mark.usefixtures("fresh")
def test_a_landed_commit_is_counted_row_by_row() -> None:
    writer = _writer("trades", {"BTCUSDT": [(1, 2)]})
    figures = ArchiveFigures(writer, Declared(), topic="t", group="g")
    before = metrics.lake_freshness.labels().count, metrics.commit_freshness.labels().count
    now_ns = time.time_ns()
    rows = pa.table(
        {
            "recv_ts_ns": [now_ns - 10**9, now_ns - 3 * 10**9, now_ns],
            "origin": ["STREAM", "STREAM", "HEALED"],
            "symbol": ["BTCUSDT"] * 3,
            "source_sequence": [1, 2, 3],
        }
    )
    bad = [Undecodable(b"x", "why", "serialize")]
    errors = metrics.table_write_errors.labels("trades", "serialize").value
    figures.landed(
        _landed(rows, bad=bad, repeated=[]), took_s=0.02, produced_ms=[now_ns // 10**6 - 900] * 2
    )
    assert metrics.lake_freshness.labels().count - before[0] == 2
    assert metrics.commit_freshness.labels().count - before[1] == 2
    assert metrics.table_write_errors.labels("trades", "serialize").value == errors + 1
    assert metrics.lake_next_id.labels("BTCUSDT").value == 3
    assert metrics.snapshot_count.labels("trades").value == 3
    assert metrics.promise_broken.labels().value == 0


@pytest.mark.usefixtures("fresh")
def test_an_id_the_topic_holds_twice_breaks_the_promise() -> None:
    figures = ArchiveFigures(
        _writer("trades", {"BTCUSDT": [(1, 2)]}), Declared(), topic="t", group="g"
    )
    figures.landed(_landed(pa.table({"x": []}), bad=[], repeated=["m"]), took_s=0, produced_ms=[])
    assert metrics.topic_duplicates.labels().value == 1
    assert metrics.promise_broken.labels().value == 1


@pytest.mark.usefixtures("fresh")
def test_an_id_met_again_on_the_operators_wish_breaks_nothing() -> None:
    figures = ArchiveFigures(
        _writer("trades", {"BTCUSDT": [(1, 2)]}), Declared(), topic="t", group="g"
    )
    rows = pa.table({"x": []})
    figures.landed(_landed(rows, bad=[], repeated=["m"], rereads=True), took_s=0, produced_ms=[])
    assert metrics.promise_broken.labels().value == 0


@pytest.mark.usefixtures("fresh")
def test_a_hole_nobody_declared_breaks_the_promise() -> None:
    declared = Declared()
    declared.reached(pa.table({"symbol": ["BTCUSDT"], "source_sequence": [6]}))
    ArchiveFigures(_writer("trades", {"BTCUSDT": [(1, 2), (5, 6)]}), declared, topic="t", group="g")
    assert metrics.promise_broken.labels().value == 2


@pytest.mark.usefixtures("fresh")
def test_a_record_nothing_accounts_for_breaks_the_promise_whatever_its_topic() -> None:
    declared = Declared()
    trades = ArchiveFigures(_writer("trades", {"A": [(1, 2)]}), declared, topic="t", group="g")
    gaps = ArchiveFigures(_writer("gaps", {}), declared, topic="t.gaps", group="g")
    whole = RecordAccount(read=9, rows=4, dead_letters=2, repeated=1)
    with capture_logs() as logs:
        trades.accounted(whole, waiting=2)
        gaps.accounted(whole, waiting=2)
        assert (metrics.promise_broken.labels().value, logs) == (0, [])
        for _ in range(2):
            gaps.accounted(whole, waiting=1)
            trades.accounted(whole, waiting=4)
    assert metrics.promise_broken.labels().value == 3
    assert [(line["topic"], line["count"]) for line in logs] == [("t.gaps", 1), ("t", 2)]
    rows = pa.table({"x": []})
    trades.landed(_landed(rows, bad=[], repeated=["m"]), took_s=0, produced_ms=[])
    assert metrics.promise_broken.labels().value == 4, "what else is wrong comes on top"


def test_a_late_trade_says_nothing_of_freshness() -> None:
    figures = ArchiveFigures(
        _writer("trades", {}), Declared(), topic="t", group="g", source=Source.REPAIRS
    )
    count = metrics.lake_freshness.labels().count
    rows = pa.table(
        {"recv_ts_ns": [1], "origin": ["STREAM"], "symbol": ["A"], "source_sequence": [1]}
    )
    figures.landed(_landed(rows, bad=[], repeated=[]), took_s=0, produced_ms=[1])
    assert metrics.lake_freshness.labels().count == count


def test_a_partition_without_waiting_records_has_no_age() -> None:
    figures = ArchiveFigures(_writer("trades", {}), Declared(), topic="t", group="g")
    figures.lag(0, behind=7, oldest_ms=None)
    assert metrics.consumer_lag.labels("t", "0", "g").value == 7
    assert metrics.consumer_lag_seconds.labels("t", "0", "g").value == 0
    figures.lag(0, behind=7, oldest_ms=int(time.time() * 1000) - 5_000)
    age = metrics.consumer_lag_seconds.labels("t", "0", "g")
    assert 4.9 < age.value < 6
    age.set(0)
    figures.show_age()
    assert 4.9 < age.value < 6, "it ages while nothing is polled, too"
