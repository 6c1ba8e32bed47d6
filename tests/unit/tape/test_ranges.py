from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from k2.market import IdRange
from k2.tape.coverage import Coverage
from k2.tape.ranges import without

ranges = st.lists(
    st.tuples(st.integers(0, 30), st.integers(0, 4)).map(lambda r: IdRange(r[0], r[0] + r[1])),
    max_size=6,
).map(sorted)


def _ids(of: Iterable[IdRange]) -> list[int]:
    return [i for ids in of for i in range(ids.first_id, ids.last_id + 1)]


@given(st.sets(st.integers(0, 34)), ranges)
def test_what_is_left_is_a_difference_of_sets(ids: set[int], taken: list[IdRange]) -> None:
    coverage = Coverage()
    for source_id in ids:
        coverage.add("X", source_id)
    left = _ids(without(coverage.ranges("X"), taken))
    assert left == sorted(ids - set(_ids(taken)))
