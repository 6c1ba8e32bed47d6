"""The data dictionary's SQL says what ``k2 verify`` says."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from pyiceberg.catalog import Catalog

from k2.lake.commit_plan import Source
from k2.lake.decoding import GapDecoder, TradeDecoder
from k2.lake.proof import prove
from k2.lake.query import LakeReader
from k2.lake.writer import TableWriter

ValueOf = Callable[..., bytes]
PAGE = Path(__file__).parents[3] / "docs" / "reference" / "data-dictionary-v2.md"
WITHOUT_GAPS, WITH_GAPS, DECLARED = re.findall(
    r"```sql\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL
)
TS_US = 1_767_225_660_000_000


@pytest.mark.parametrize(
    ("ids", "repaired", "complete", "declared"),
    [
        ([1, 2, 5, 6], [], True, 2),
        ([1, 2, 3, 5, 6], [(3, 3)], True, 1),
        ([1, 2, 3, 4, 5, 6], [(4, 4), (3, 3)], True, 0),
        ([1, 2, 6], [], False, 2),
    ],
)
def test_the_promise_in_sql_is_the_proof(
    catalog: Catalog,
    decoder: TradeDecoder,
    value_of: ValueOf,
    gap_value: ValueOf,
    ids: list[int],
    repaired: list[tuple[int, int]],
    complete: bool,
    declared: int,
) -> None:
    trades = TableWriter(catalog, "trades", decoder, topics={Source.MAIN: "t@1"})
    trades.write([value_of(i) for i in ids], offsets={0: len(ids)})
    gaps = TableWriter(catalog, "gaps", GapDecoder(), topics={Source.MAIN: "t.gaps@1"})
    repairs = [gap_value(a, b, event="repaired", repaired_ts_us=TS_US) for a, b in repaired]
    gaps.write([gap_value(3, 4), *repairs], offsets={0: 1 + len(repairs)})
    reader = LakeReader(catalog)
    assert reader.run(WITH_GAPS).rows == [("BTCUSDT", complete)]
    assert reader.run(WITHOUT_GAPS).rows == [("BTCUSDT", declared == 0)]
    assert reader.run(DECLARED).rows == [("BTCUSDT", declared)]
    assert prove(reader, configured=()).complete is complete
