import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2.errors import StopError
from k2.lake.commit_plan import (
    BATCH_ID,
    COVERAGE,
    OFFSETS,
    TOPIC,
    Reached,
    Source,
    TableState,
    Verdict,
    after_failure,
    decode_offsets,
    encode_coverage,
    encode_offsets,
    read_state,
)
from k2.market import IdRange
from k2.tape.coverage import Coverage

MARKS = {OFFSETS: '{"0": 12, "1": 7}', BATCH_ID: "b1"}


def _state(batch_id: str, offsets: dict[int, int]) -> TableState:
    return TableState({Source.MAIN: Reached("t@1", offsets)}, batch_id, Coverage())


def test_a_commit_whose_batch_is_in_the_table_landed() -> None:
    state = _state("mine", {0: 20})
    assert after_failure(state, before=_state("before", {0: 10}), batch_id="mine") is Verdict.LANDED


def test_a_table_that_did_not_move_takes_the_same_files_again() -> None:
    state = _state("before", {0: 10})
    assert (
        after_failure(state, before=_state("before", {0: 10}), batch_id="mine")
        is Verdict.APPEND_AGAIN
    )


def test_a_table_that_moved_has_another_writer() -> None:
    for offsets in ({0: 20}, {0: 5}, {0: 10, 1: 1}, {}):
        state = _state("theirs", offsets)
        assert (
            after_failure(state, before=_state("before", {0: 10}), batch_id="mine")
            is Verdict.ANOTHER_WRITER
        )


def test_a_new_table_holds_nothing() -> None:
    state = read_state(properties={}, summary=None, rows=0)
    assert (state.sources, state.batch_id) == ({}, "")
    assert state.coverage.symbols() == []


def test_a_table_says_what_it_holds() -> None:
    properties = {**MARKS, TOPIC: "t@1", COVERAGE: '{"X": [[1, 5], [9, 9]]}'}
    state = read_state(properties=properties, summary=MARKS, rows=6)
    assert state.sources == {Source.MAIN: Reached("t@1", {0: 12, 1: 7})}
    assert state.batch_id == "b1"
    assert state.coverage.ranges("X") == [IdRange(1, 5), IdRange(9, 9)]


@pytest.mark.parametrize("absent", [OFFSETS, BATCH_ID])
@pytest.mark.parametrize("where", ["summary", "properties"])
def test_rows_without_offsets_are_refused(absent: str, where: str) -> None:
    summary, properties = dict(MARKS), dict(MARKS)
    del {"summary": summary, "properties": properties}[where][absent]
    with pytest.raises(StopError, match=r"6 rows but not the Kafka offsets.*roll the table back"):
        read_state(properties=properties, summary=summary, rows=6)
    assert read_state(properties=properties, summary=summary, rows=0).sources == {}


@pytest.mark.parametrize("change", [{OFFSETS: '{"0": 13, "1": 7}'}, {BATCH_ID: "b2"}])
def test_two_places_that_differ_are_refused(change: dict[str, str]) -> None:
    with pytest.raises(StopError, match=r"snapshot says.*properties say"):
        read_state(properties={**MARKS, **change}, summary=MARKS, rows=6)


REPAIRS = {Source.REPAIRS.offsets_mark: '{"0": 3}'}


def test_a_table_says_how_much_of_each_of_its_topics_it_holds() -> None:
    marks = MARKS | REPAIRS
    properties = {**marks, TOPIC: "t@1", Source.REPAIRS.topic_mark: "t.repairs@2"}
    assert read_state(properties=properties, summary=marks, rows=6).sources == {
        Source.MAIN: Reached("t@1", {0: 12, 1: 7}),
        Source.REPAIRS: Reached("t.repairs@2", {0: 3}),
    }


def test_what_a_version_without_repairs_wrote_keeps_their_offsets() -> None:
    state = read_state(properties={**MARKS, **REPAIRS}, summary=MARKS, rows=6)
    assert state.sources[Source.REPAIRS].offsets == {0: 3}


def test_repairs_that_one_place_knows_further_are_refused() -> None:
    ahead = {Source.REPAIRS.offsets_mark: '{"0": 4}'}
    with pytest.raises(StopError, match=r"snapshot says.*properties say"):
        read_state(properties={**MARKS, **REPAIRS}, summary={**MARKS, **ahead}, rows=6)


def test_a_table_that_moved_by_its_repairs_alone_has_another_writer() -> None:
    before = _state("before", {0: 10})
    moved = TableState(
        {**before.sources, Source.REPAIRS: Reached("t.repairs@2", {0: 1})}, "theirs", Coverage()
    )
    assert after_failure(moved, before=before, batch_id="mine") is Verdict.ANOTHER_WRITER


@given(st.dictionaries(st.integers(0, 63), st.integers(0, 2**63 - 1)))
def test_offsets_come_back_as_they_were_written(offsets: dict[int, int]) -> None:
    assert decode_offsets(encode_offsets(offsets)) == offsets


def test_coverage_is_kept_readable() -> None:
    assert encode_coverage(Coverage({"币": [(1, 2)]})) == '{"币": [[1, 2]]}'


def test_rows_that_nobody_counted_are_not_taken_for_none() -> None:
    for properties in ({}, MARKS):
        with pytest.raises(StopError, match=r"an unknown number of rows.*roll the table back"):
            read_state(properties=properties, summary={}, rows=None)
    assert read_state(properties=MARKS, summary=MARKS, rows=None).batch_id == "b1"


@pytest.mark.parametrize("mark", [COVERAGE, OFFSETS, Source.MAIN.reread_mark])
@pytest.mark.parametrize(
    "text", ["oops", "[1]", '{"X": 1}', '{"X": [[2]]}', '{"X": [[2, 1]]}', '{"0": "x"}']
)
def test_marks_that_nobody_can_read_are_refused(mark: str, text: str) -> None:
    changed = {mark: text}
    summary = MARKS | changed if mark == OFFSETS else MARKS
    with pytest.raises(StopError, match=rf"{mark}.*another program.*roll"):
        read_state(properties=MARKS | changed, summary=summary, rows=6)
