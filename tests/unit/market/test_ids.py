import pytest

from k2.market import IdRange


def test_a_range_includes_both_ends() -> None:
    ids = IdRange(3, 5)
    assert len(ids) == 3
    assert [i in ids for i in (2, 3, 5, 6)] == [False, True, True, False]


@pytest.mark.parametrize(("first_id", "last_id"), [(-1, 0), (5, 4)])
def test_what_is_no_range_cannot_be_made(first_id: int, last_id: int) -> None:
    with pytest.raises(ValueError, match="not a range"):
        IdRange(first_id, last_id)


def test_ranges_sort_by_their_first_id() -> None:
    assert sorted([IdRange(5, 9), IdRange(1, 2)]) == [IdRange(1, 2), IdRange(5, 9)]
