from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from k2.market import IdRange
from k2.tape.coverage import Coverage

ADDS = st.lists(st.tuples(st.sampled_from(["A", "B"]), st.integers(0, 25)), max_size=60)


def _ids(coverage: Coverage, symbol: str) -> set[int]:
    return {i for ids in coverage.ranges(symbol) for i in range(ids.first_id, ids.last_id + 1)}


@given(ADDS)
def test_coverage_is_a_set_of_ids_kept_as_few_ranges(adds: list[tuple[str, int]]) -> None:
    coverage, model = Coverage(), dict[str, set[int]]()
    for symbol, source_id in adds:
        held = model.setdefault(symbol, set())
        assert coverage.add(symbol, source_id) is (source_id not in held)
        held.add(source_id)
        assert _ids(coverage, symbol) == held
        assert coverage.count(symbol) == len(held)
        ranges = coverage.ranges(symbol)
        # Ascending, and with an id between each two: never two ranges where one would do.
        assert all(a.last_id + 1 < b.first_id for a, b in pairwise(ranges))
    assert coverage.symbols() == sorted(model)
    again = Coverage(coverage.as_pairs())
    assert again.as_pairs() == coverage.as_pairs()


def test_a_copy_goes_its_own_way() -> None:
    one = Coverage({"A": [(1, 3)]})
    two = one.copy()
    assert two.add("A", 4)
    assert two.add("B", 1)
    assert one.ranges("A") == [IdRange(1, 3)]
    assert one.symbols() == ["A"]


def test_what_was_never_added_is_empty() -> None:
    assert Coverage().ranges("A") == []
    assert Coverage({"A": []}).symbols() == []
    assert Coverage().count("A") == 0
