import time

from hypothesis import given
from hypothesis import strategies as st

from k2.ingestion.open_ids import OpenIds
from k2.kafka.position import OPEN_GAPS_MAX, OpenGap
from k2.market import IdRange

gaps = st.lists(
    st.builds(
        lambda symbol, first_id, length: OpenGap(symbol, IdRange(first_id, first_id + length), 1),
        st.sampled_from("XY"),
        st.integers(0, 40),
        st.integers(0, 9),
    ),
    max_size=9,
).map(tuple)


@given(st.lists(gaps, max_size=4))
def test_an_id_is_open_where_a_gap_has_it_whatever_was_read_before(
    read: list[tuple[OpenGap, ...]],
) -> None:
    open_ids = OpenIds()
    for now in read:
        for symbol in "XYZ":
            for source_id in range(52):
                expected = any(gap.symbol == symbol and source_id in gap.ids for gap in now)
                assert open_ids.has(now, symbol, source_id) == expected


def test_a_copy_costs_the_same_however_many_gaps_are_open() -> None:
    def cost_s(count: int) -> float:
        many = tuple(OpenGap("X", IdRange(10 * i, 10 * i), 1) for i in range(count))
        open_ids = OpenIds()
        open_ids.has(many, "X", 5)
        began_s = time.perf_counter()
        for source_id in range(2_000):
            open_ids.has(many, "X", source_id)
        return time.perf_counter() - began_s

    few = min(cost_s(10) for _ in range(5))
    assert min(cost_s(OPEN_GAPS_MAX) for _ in range(5)) < 10 * few
