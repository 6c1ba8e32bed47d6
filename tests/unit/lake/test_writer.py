from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import CommitFailedException, CommitStateUnknownException
from pyiceberg.io.pyarrow import PyArrowFileIO
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Operation, Summary
from pyiceberg.table.update import AddSnapshotUpdate, SetSnapshotRefUpdate
from sqlalchemy.exc import OperationalError

from k2.errors import ReconcileError, RetryError, StopError
from k2.lake import snapshots as snapshots_module
from k2.lake import writer as writer_module
from k2.lake.commit_plan import BATCH_ID, COVERAGE, OFFSETS, TOPIC, Source
from k2.lake.decoding import GapDecoder, TradeDecoder
from k2.lake.file_io import KeepingFileIO
from k2.lake.snapshots import SNAPSHOTS_KEPT, SNAPSHOTS_MAX
from k2.lake.tables import open_catalog, require_table
from k2.lake.writer import TableWriter

ValueOf = Callable[..., bytes]
TOPIC_ID = "market.crypto.trades.binance@id1"
FILES_PER_MANIFEST_MAX = 600
"""More than MANIFEST_MAX_BYTES has room for."""


class Broken:
    """The catalog's commit, made to fail in one way; counts how often it was called."""

    def __init__(self, catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls = 0
        self._real: Any = catalog.commit_table
        self._script: list[tuple[bool, Exception] | Callable[[], None]] = []
        monkeypatch.setattr(catalog, "commit_table", self)

    def then(self, step: tuple[bool, Exception] | Callable[[], None]) -> None:
        """Add a step: (lands first?, what is raised), or a call made before a normal commit."""
        self._script.append(step)

    def __call__(self, *args: Any) -> Any:
        self.calls += 1
        step = self._script.pop(0) if self._script else None
        if callable(step):
            step()
        elif step is not None:
            lands, problem = step
            if lands:
                self._real(*args)
            raise problem
        return self._real(*args)


@pytest.fixture
def broken(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> Broken:
    return Broken(catalog, monkeypatch)


def _writer(catalog: Catalog, decoder: TradeDecoder, topic: str = TOPIC_ID) -> TableWriter:
    return TableWriter(catalog, "trades", decoder, topics={Source.MAIN: topic})


def _ids(catalog: Catalog) -> list[int]:
    rows = require_table(catalog, "trades").scan().to_arrow()
    return sorted(rows.column("source_sequence").to_pylist())


def _losing() -> list[Exception]:
    return [
        CommitFailedException("409"),
        CommitStateUnknownException("504"),
        OperationalError("UPDATE", {}, Exception("database is locked")),
        ConnectionResetError("gone"),
    ]


def test_rows_and_offsets_are_in_the_same_snapshot(
    catalog: Catalog, decoder: TradeDecoder, value_of: ValueOf
) -> None:
    writer = _writer(catalog, decoder)
    landed = writer.write([value_of(1), value_of(2)], offsets={0: 12})
    assert (landed.rows, landed.offsets) == (2, {0: 12})
    writer.write([value_of(3)], offsets={1: 5})
    table = require_table(catalog, "trades")
    snapshot = table.current_snapshot()
    assert snapshot is not None
    assert snapshot.summary is not None
    marks = snapshot.summary.additional_properties
    assert marks[OFFSETS] == table.properties[OFFSETS] == '{"0": 12, "1": 5}'
    assert marks[BATCH_ID] == table.properties[BATCH_ID]
    assert table.properties[COVERAGE] == '{"BTCUSDT": [[1, 3]]}'
    assert table.properties[TOPIC] == TOPIC_ID
    assert len(table.snapshots()) == 2
    assert _ids(catalog) == [1, 2, 3]


def test_a_new_writer_goes_on_where_the_table_says_it_ends(
    tmp_path: Path, catalog: Catalog, decoder: TradeDecoder, value_of: ValueOf
) -> None:
    _writer(catalog, decoder).write([value_of(1), value_of(2)], offsets={0: 12, 3: 4})
    again = _writer(open_catalog(lake_dir=tmp_path / "lake"), decoder)
    assert again.offsets() == {0: 12, 3: 4}
    landed = again.write([value_of(2), value_of(3)], offsets={0: 14})
    assert landed.decoded.repeated == ["BINANCE:BTCUSDT:agg:2"]
    assert again.offsets() == {0: 14, 3: 4}
    assert _ids(catalog) == [1, 2, 3]


def test_offsets_advance_past_a_batch_without_rows(
    catalog: Catalog, decoder: TradeDecoder, value_of: ValueOf
) -> None:
    writer = _writer(catalog, decoder)
    assert writer.write([b'{"test": "message"}'], offsets={0: 1}).rows == 0
    writer.write([value_of(1)], offsets={0: 2})
    assert writer.write([b'{"test": "message"}', None], offsets={0: 4}).rows == 0
    assert _writer(catalog, decoder).offsets() == {0: 4}
    assert _ids(catalog) == [1]


@pytest.mark.parametrize("problem", _losing(), ids=lambda p: type(p).__name__)
def test_a_commit_that_landed_and_then_raised_is_not_done_twice(
    catalog: Catalog,
    decoder: TradeDecoder,
    value_of: ValueOf,
    broken: Broken,
    problem: Exception,
) -> None:
    writer = _writer(catalog, decoder)
    writer.write([value_of(1)], offsets={0: 1})
    broken.then((True, problem))
    assert writer.write([value_of(2)], offsets={0: 2}).rows == 1
    assert broken.calls == 2
    assert _ids(catalog) == [1, 2]
    # Its files are all there: the table reads, and takes the next batch.
    writer.write([value_of(3)], offsets={0: 3})
    assert _ids(catalog) == [1, 2, 3]
    assert _writer(catalog, decoder).offsets() == {0: 3}


@pytest.mark.parametrize("problem", _losing(), ids=lambda p: type(p).__name__)
def test_a_commit_that_did_not_land_is_done_again_exactly_once(
    catalog: Catalog,
    decoder: TradeDecoder,
    value_of: ValueOf,
    broken: Broken,
    problem: Exception,
) -> None:
    writer = _writer(catalog, decoder)
    writer.write([value_of(1)], offsets={0: 1})
    broken.then((False, problem))
    broken.then((False, problem))
    assert writer.write([value_of(2)], offsets={0: 2}).rows == 1
    assert broken.calls == 4
    assert _ids(catalog) == [1, 2]


def test_the_first_commit_of_a_table_may_be_unclear_too(
    catalog: Catalog, decoder: TradeDecoder, value_of: ValueOf, broken: Broken
) -> None:
    writer = _writer(catalog, decoder)
    broken.then((False, CommitFailedException("409")))
    broken.then((True, CommitFailedException("409")))
    writer.write([value_of(1)], offsets={0: 1})
    assert _ids(catalog) == [1]


def test_a_table_that_refuses_the_same_commit_for_ever_is_tried_later(
    catalog: Catalog, decoder: TradeDecoder, value_of: ValueOf, broken: Broken
) -> None:
    writer = _writer(catalog, decoder)
    for _ in range(writer_module.ATTEMPTS_MAX):
        broken.then((False, CommitFailedException("409")))
    with pytest.raises(RetryError, match="refused the same commit"):
        writer.write([value_of(1)], offsets={0: 1})
    writer.write([value_of(1)], offsets={0: 1})
    assert _ids(catalog) == [1]


def test_another_writer_moving_the_table_stops_this_one(
    tmp_path: Path, catalog: Catalog, decoder: TradeDecoder, value_of: ValueOf
) -> None:
    writer = _writer(catalog, decoder)
    writer.write([value_of(1)], offsets={0: 1})
    other = _writer(open_catalog(lake_dir=tmp_path / "lake"), decoder)
    other.write([value_of(2)], offsets={0: 2})
    with pytest.raises(StopError, match="another archive runs on this lake"):
        writer.write([value_of(2)], offsets={0: 2})
    assert _ids(catalog) == [1, 2]


def test_a_table_that_cannot_be_looked_at_leaves_the_outcome_to_the_next_start(
    catalog: Catalog,
    decoder: TradeDecoder,
    value_of: ValueOf,
    broken: Broken,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    writer = _writer(catalog, decoder)
    broken.then((True, ConnectionResetError("gone")))

    def away(_name: Any) -> Any:
        raise ConnectionResetError("still gone")

    with monkeypatch.context() as patch:
        patch.setattr(writer_module, "LOOK_DEADLINE_S", -1.0)
        patch.setattr(catalog, "load_table", away)
        patch.setattr(broken, "_real", lambda *args: None)
        with pytest.raises(ReconcileError, match="cannot be read after an unclear commit"):
            writer.write([value_of(1)], offsets={0: 1})
    again = _writer(catalog, decoder)
    again.write([value_of(1)], offsets={0: 1})
    assert _ids(catalog) == [1]


def test_a_topic_made_anew_is_refused_until_the_operator_says_so(
    catalog: Catalog, decoder: TradeDecoder, value_of: ValueOf, broken: Broken
) -> None:
    _writer(catalog, decoder).write([value_of(1), value_of(2)], offsets={0: 900})
    with pytest.raises(StopError, match="k2 archive --from-first"):
        _writer(catalog, decoder, topic="market.crypto.trades.binance@id2")
    made_anew = "market.crypto.trades.binance@id2"
    writer = TableWriter(
        catalog, "trades", decoder, topics={Source.MAIN: made_anew}, from_first=True
    )
    assert writer.offsets() == {}
    broken.then((False, CommitFailedException("409")))
    landed = writer.write([value_of(2), value_of(3)], offsets={0: 2})
    assert (landed.rows, len(landed.decoded.repeated)) == (1, 1)
    assert _ids(catalog) == [1, 2, 3]
    assert _writer(catalog, decoder, topic=made_anew).offsets() == {0: 2}


def test_records_read_again_on_the_operators_wish_are_expected_only_as_far_as_the_table_was(
    catalog: Catalog, decoder: TradeDecoder, value_of: ValueOf
) -> None:
    first = _writer(catalog, decoder)
    assert not first.write([value_of(1), value_of(2)], offsets={0: 900}).rereads
    writer = TableWriter(
        catalog, "trades", decoder, topics={Source.MAIN: TOPIC_ID}, from_first=True
    )
    assert writer.write([value_of(1)], offsets={0: 500}).rereads
    assert writer.write([value_of(2)], offsets={0: 900}).rereads
    assert not writer.write([value_of(3)], offsets={0: 901}).rereads


def test_reading_again_may_be_interrupted_and_goes_on_as_expected(
    catalog: Catalog, decoder: TradeDecoder, value_of: ValueOf
) -> None:
    values = [value_of(i) for i in range(1, 5)]
    _writer(catalog, decoder).write(values, offsets={0: 4})

    def again(*, from_first: bool) -> TableWriter:
        topics = {Source.MAIN: TOPIC_ID}
        return TableWriter(catalog, "trades", decoder, topics=topics, from_first=from_first)

    again(from_first=True).write(values[:1], offsets={0: 1})
    assert again(from_first=False).write(values[1:2], offsets={0: 2}).rereads
    assert again(from_first=True).write(values[:1], offsets={0: 1}).rereads
    writer = again(from_first=False)
    assert writer.write(values[1:], offsets={0: 4}).rereads, "as far as it was at first"
    assert not writer.write(values, offsets={0: 5}).rereads
    assert not again(from_first=False).write(values, offsets={0: 6}).rereads


def test_a_topic_made_anew_is_not_measured_by_the_old_ones_offsets(
    catalog: Catalog, decoder: TradeDecoder, value_of: ValueOf
) -> None:
    topics = {Source.MAIN: TOPIC_ID}
    _writer(catalog, decoder).write([value_of(1)], offsets={0: 900})
    TableWriter(catalog, "trades", decoder, topics=topics, from_first=True).write(
        [value_of(1)], offsets={0: 1}
    )
    anew = {Source.MAIN: "market.crypto.trades.binance@id2"}
    TableWriter(catalog, "trades", decoder, topics=anew, from_first=True).write(
        [value_of(2)], offsets={0: 2}
    )
    writer = TableWriter(catalog, "trades", decoder, topics=anew)
    assert not writer.write([value_of(2)], offsets={0: 3}).rereads


def test_a_table_never_takes_another_topics_trades_whatever_the_operator_says(
    catalog: Catalog, decoder: TradeDecoder, value_of: ValueOf
) -> None:
    _writer(catalog, decoder).write([value_of(1)], offsets={0: 1})
    with pytest.raises(StopError, match="K2_LAKE_DIR"):
        TableWriter(
            catalog, "trades", decoder, topics={Source.MAIN: "simulated.binance@x"}, from_first=True
        )


def test_a_table_another_program_wrote_to_is_refused(
    catalog: Catalog, decoder: TradeDecoder, value_of: ValueOf
) -> None:
    _writer(catalog, decoder).write([value_of(1)], offsets={0: 1})
    table = require_table(catalog, "trades")
    table.append(decoder.decode([value_of(9)], _writer(catalog, decoder).state.coverage).rows)
    with pytest.raises(StopError, match="not the Kafka offsets"):
        _writer(catalog, decoder)


@pytest.mark.parametrize("summary", [Summary(Operation.REPLACE), None])
def test_a_snapshot_that_counts_no_rows_is_not_an_empty_table(
    catalog: Catalog, decoder: TradeDecoder, value_of: ValueOf, summary: Summary | None
) -> None:
    _writer(catalog, decoder).write([value_of(1)], offsets={0: 1})
    table = require_table(catalog, "trades")
    was = table.current_snapshot()
    assert was is not None
    made = was.model_copy(
        update={
            "snapshot_id": was.snapshot_id + 1,
            "sequence_number": (was.sequence_number or 0) + 1,
            "timestamp_ms": was.timestamp_ms + 1,
            "summary": summary,
        }
    )
    catalog.commit_table(
        table,
        (),
        (
            AddSnapshotUpdate(snapshot=made),
            SetSnapshotRefUpdate.model_validate(
                {"ref-name": "main", "type": "branch", "snapshot-id": made.snapshot_id}
            ),
        ),
    )
    with pytest.raises(StopError, match="unknown number of rows"):
        _writer(catalog, decoder)


def test_a_table_dropped_under_its_writer_stops_it(
    catalog: Catalog, decoder: TradeDecoder, value_of: ValueOf, broken: Broken
) -> None:
    writer = _writer(catalog, decoder)
    writer.write([value_of(1)], offsets={0: 1})
    drop = partial(catalog.drop_table, "crypto.trades")
    for step in (drop, (False, ConnectionResetError("gone"))):
        broken.then(step)
        with pytest.raises(StopError, match="was dropped"):
            writer.write([value_of(2)], offsets={0: 2})


def test_a_table_dropped_before_its_snapshots_are_forgotten_stops_its_writer(
    catalog: Catalog, decoder: TradeDecoder, value_of: ValueOf, broken: Broken,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(snapshots_module, "SNAPSHOTS_MAX", 1)
    monkeypatch.setattr(snapshots_module, "SNAPSHOTS_KEPT", 1)
    writer = _writer(catalog, decoder)
    for source_id in (1, 2):
        writer.write([value_of(source_id)], offsets={0: source_id})
    broken.then(lambda: None)
    broken.then(partial(catalog.drop_table, "crypto.trades"))
    with pytest.raises(StopError, match="was dropped"):
        writer.write([value_of(3)], offsets={0: 3})


def test_a_column_another_program_renamed_is_refused_by_name(
    catalog: Catalog, decoder: TradeDecoder, value_of: ValueOf
) -> None:
    _writer(catalog, decoder).write([value_of(1)], offsets={0: 1})
    with require_table(catalog, "trades").update_schema() as update:
        update.rename_column("origin", "src")
    with pytest.raises(StopError, match=r"src.*another program changed"):
        _writer(catalog, decoder).write([value_of(2)], offsets={0: 2})


def test_a_damaged_manifest_stops_the_writer(
    tmp_path: Path, catalog: Catalog, decoder: TradeDecoder, value_of: ValueOf
) -> None:
    writer = _writer(catalog, decoder)
    writer.write([value_of(1)], offsets={0: 1})
    for path in (tmp_path / "lake").rglob("snap-*.avro"):
        path.write_bytes(b"")
    with pytest.raises(StopError, match="damaged"):
        writer.write([value_of(2)], offsets={0: 2})


def test_the_rows_of_gaps_are_waited_for(
    tmp_path: Path, catalog: Catalog, gap_value: ValueOf
) -> None:
    writer = TableWriter(catalog, "gaps", GapDecoder(), topics={Source.MAIN: "t.gaps@1"})
    writer.write([gap_value(1, 2)], offsets={0: 1})
    for path in (tmp_path / "lake").rglob("*.parquet"):
        path.rename(path.with_suffix(".away"))
    with pytest.raises(RetryError, match="cannot be read"):
        writer.rows()


def test_snapshots_are_forgotten_once_there_are_many_and_nothing_else_is(
    catalog: Catalog, decoder: TradeDecoder, value_of: ValueOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (SNAPSHOTS_MAX, SNAPSHOTS_KEPT) == (60, 20)
    monkeypatch.setattr(snapshots_module, "SNAPSHOTS_MAX", 6)
    monkeypatch.setattr(snapshots_module, "SNAPSHOTS_KEPT", 2)
    writer = _writer(catalog, decoder)
    for source_id in range(1, 4):
        writer.write([value_of(source_id)], offsets={0: source_id})
    table = require_table(catalog, "trades")
    tagged = table.snapshots()[0].snapshot_id
    table.manage_snapshots().create_tag(tagged, "sealed-day").commit()
    writer = _writer(catalog, decoder)
    for source_id in range(4, 16):
        writer.write([value_of(source_id)], offsets={0: source_id})
        table = require_table(catalog, "trades")
        assert len(table.snapshots()) <= 8
        assert _writer(catalog, decoder).offsets() == {0: source_id}
    assert table.snapshot_by_id(tagged) is not None
    assert _ids(catalog) == list(range(1, 16))


def test_what_a_commit_rewrites_does_not_grow_with_the_files_of_the_table(
    catalog: Catalog, decoder: TradeDecoder, value_of: ValueOf
) -> None:
    writer = _writer(catalog, decoder)
    writer.write([value_of(1)], offsets={0: 1})
    _append_copies(require_table(catalog, "trades"), times=FILES_PER_MANIFEST_MAX)
    writer = _writer(catalog, decoder)
    commits = 25
    for source_id in range(2, commits + 2):
        writer.write([value_of(source_id)], offsets={0: source_id})
    table = require_table(catalog, "trades")
    rewritten, manifests = [], []
    for snapshot in table.snapshots()[-commits:]:
        held = snapshot.manifests(table.io)
        manifests.append(len(held))
        rewritten += [
            (one.added_files_count or 0) + (one.existing_files_count or 0)
            for one in held
            if one.added_snapshot_id == snapshot.snapshot_id
        ]
    assert max(rewritten) < FILES_PER_MANIFEST_MAX
    assert max(rewritten) >= 20, "small ones are merged"
    assert max(manifests) < 30


def _append_copies(table: Table, *, times: int) -> None:
    """Let the table hold so many more files, in one manifest, as after as many commits."""
    snapshot = table.current_snapshot()
    assert snapshot is not None
    (manifest,) = snapshot.manifests(table.io)
    (entry,) = manifest.fetch_manifest_entry(table.io)
    marks = {
        key: value
        for key, value in table.properties.items()
        if key in (OFFSETS, BATCH_ID, f"{OFFSETS}.repairs")
    }
    with (
        table.transaction() as transaction,
        transaction.update_snapshot(snapshot_properties=marks).fast_append() as append,
    ):
        for _ in range(times):
            append.append_data_file(entry.data_file)


def test_housekeeping_that_fails_costs_nothing(
    catalog: Catalog,
    decoder: TradeDecoder,
    value_of: ValueOf,
    broken: Broken,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(snapshots_module, "SNAPSHOTS_MAX", 1)
    monkeypatch.setattr(snapshots_module, "SNAPSHOTS_KEPT", 1)
    writer = _writer(catalog, decoder)
    writer.write([value_of(1)], offsets={0: 1})
    for lands in (False, True):
        broken.then(lambda: None)
        broken.then((lands, CommitFailedException("409")))
        source_id = 3 if lands else 2
        writer.write([value_of(source_id)], offsets={0: source_id})
    writer.write([value_of(4)], offsets={0: 4})
    assert _ids(catalog) == [1, 2, 3, 4]


REPAIRS_ID = "market.crypto.trades.binance.repairs@id3"
BOTH = {Source.MAIN: TOPIC_ID, Source.REPAIRS: REPAIRS_ID}


def test_late_trades_and_the_past_go_into_the_same_table_once(
    tmp_path: Path, catalog: Catalog, decoder: TradeDecoder, value_of: ValueOf
) -> None:
    writer = TableWriter(catalog, "trades", decoder, topics=BOTH)
    writer.write([value_of(i) for i in (10, 11, 14)], offsets={0: 20})
    writer.write([value_of(12)], offsets={0: 2}, source=Source.REPAIRS)
    past = [value_of(i) for i in (7, 8, 9, 12)]
    landed = writer.write(past, offsets={0: 7}, source=Source.REPAIRS)
    assert landed.decoded.repeated == ["BINANCE:BTCUSDT:agg:12"]
    assert _ids(catalog) == [7, 8, 9, 10, 11, 12, 14]
    table = require_table(catalog, "trades")
    assert table.properties[COVERAGE] == '{"BTCUSDT": [[7, 12], [14, 14]]}'
    snapshot = table.current_snapshot()
    assert snapshot is not None
    assert snapshot.summary is not None
    marks = snapshot.summary.additional_properties
    assert (marks[OFFSETS], marks[Source.REPAIRS.offsets_mark]) == ('{"0": 20}', '{"0": 7}')
    again = TableWriter(open_catalog(lake_dir=tmp_path / "lake"), "trades", decoder, topics=BOTH)
    assert (again.offsets(), again.offsets(Source.REPAIRS)) == ({0: 20}, {0: 7})


def test_a_lake_that_knows_no_repairs_goes_on_and_begins_with_their_first(
    catalog: Catalog, decoder: TradeDecoder, value_of: ValueOf
) -> None:
    _writer(catalog, decoder).write([value_of(5)], offsets={0: 3})
    writer = TableWriter(catalog, "trades", decoder, topics=BOTH)
    assert (writer.offsets(), writer.offsets(Source.REPAIRS)) == ({0: 3}, {})
    writer.write([value_of(4)], offsets={0: 1}, source=Source.REPAIRS)
    writer = TableWriter(catalog, "trades", decoder, topics=BOTH)
    assert (writer.offsets(), writer.offsets(Source.REPAIRS)) == ({0: 3}, {0: 1})


def test_repairs_may_be_the_first_that_a_table_gets(
    catalog: Catalog, decoder: TradeDecoder, value_of: ValueOf
) -> None:
    writer = TableWriter(catalog, "trades", decoder, topics=BOTH)
    writer.write([value_of(4)], offsets={0: 1}, source=Source.REPAIRS)
    writer = TableWriter(catalog, "trades", decoder, topics=BOTH)
    assert (writer.offsets(), writer.offsets(Source.REPAIRS)) == ({}, {0: 1})


def test_a_lost_reply_about_repairs_doubles_nothing(
    catalog: Catalog, decoder: TradeDecoder, value_of: ValueOf, broken: Broken
) -> None:
    writer = TableWriter(catalog, "trades", decoder, topics=BOTH)
    writer.write([value_of(5)], offsets={0: 3})
    broken.then((True, CommitStateUnknownException("504")))
    writer.write([value_of(3)], offsets={0: 1}, source=Source.REPAIRS)
    broken.then((False, CommitStateUnknownException("504")))
    writer.write([value_of(4)], offsets={0: 2}, source=Source.REPAIRS)
    assert _ids(catalog) == [3, 4, 5]


def test_a_repairs_topic_made_anew_is_refused_until_the_operator_says_so(
    catalog: Catalog, decoder: TradeDecoder, value_of: ValueOf
) -> None:
    writer = TableWriter(catalog, "trades", decoder, topics=BOTH)
    writer.write([value_of(5)], offsets={0: 3})
    writer.write([value_of(4)], offsets={0: 9}, source=Source.REPAIRS)
    anew = {Source.MAIN: TOPIC_ID, Source.REPAIRS: REPAIRS_ID.replace("@id3", "@id4")}
    with pytest.raises(StopError, match=r"repairs@id3.*k2 archive --from-first"):
        TableWriter(catalog, "trades", decoder, topics=anew)
    writer = TableWriter(catalog, "trades", decoder, topics=anew, from_first=True)
    assert writer.offsets(Source.REPAIRS) == {}
    writer.write([value_of(4), value_of(3)], offsets={0: 2}, source=Source.REPAIRS)
    assert _ids(catalog) == [3, 4, 5]


def test_gap_records_have_their_own_table(catalog: Catalog) -> None:
    writer = TableWriter(catalog, "gaps", GapDecoder(), topics={Source.MAIN: "t.gaps@1"})
    value = (
        b'{"symbol":"X","first_id":1,"last_id":2,"class":"missing","reason":"",'
        b'"declared_ts_us":1767225600000000}'
    )
    writer.write([value], offsets={0: 1})
    assert len(require_table(catalog, "gaps").scan().to_arrow()) == 1


def test_the_lake_never_deletes_a_file(catalog: Catalog, decoder: TradeDecoder) -> None:
    table = _writer(catalog, decoder)._table
    assert isinstance(table.io, KeepingFileIO)
    assert table.properties["commit.retry.num-retries"] == "0"


def test_with_the_librarys_own_delete_a_lost_reply_would_cost_the_table(
    catalog: Catalog,
    decoder: TradeDecoder,
    value_of: ValueOf,
    broken: Broken,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What ``KeepingFileIO`` is for: without it, a landed commit's manifests are deleted."""
    monkeypatch.setattr(KeepingFileIO, "delete", PyArrowFileIO.delete)
    writer = _writer(catalog, decoder)
    broken.then((True, CommitFailedException("409, but it landed")))
    writer.write([value_of(1)], offsets={0: 1})
    with pytest.raises(FileNotFoundError):
        _ids(catalog)
