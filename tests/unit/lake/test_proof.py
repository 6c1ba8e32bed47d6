from collections.abc import Callable, Iterable

import pytest
from pyiceberg.catalog import Catalog

from k2.lake.commit_plan import Source
from k2.lake.decoding import GapDecoder, TradeDecoder
from k2.lake.proof import Proof, SymbolProof, prove
from k2.lake.query import LakeReader
from k2.lake.tables import ensure_table
from k2.lake.writer import TableWriter
from k2.market import IdRange
from k2.tape.coverage import Coverage

ValueOf = Callable[..., bytes]
Fill = Callable[..., None]


@pytest.fixture
def fill(catalog: Catalog, decoder: TradeDecoder, value_of: ValueOf, gap_value: ValueOf) -> Fill:
    """Return what puts ids and declared gaps into the lake."""

    def write(
        ids: Iterable[int], *, symbol: str = "BTCUSDT", gaps: Iterable[tuple[int, int]] = ()
    ) -> None:
        writer = TableWriter(catalog, "trades", decoder, topics={Source.MAIN: "t@1"})
        values = [value_of(i, symbol, origin="HEALED" if i % 2 else "STREAM") for i in ids]
        start = writer.offsets().get(0, 0)
        writer.write(values, offsets={0: start + len(values)})
        declared = [gap_value(first, last, symbol=symbol) for first, last in gaps]
        if declared:
            other = TableWriter(catalog, "gaps", GapDecoder(), topics={Source.MAIN: "t.gaps@1"})
            other.write(declared, offsets={0: other.offsets().get(0, 0) + len(declared)})

    return write


def _prove(catalog: Catalog, *configured: str) -> Proof:
    return prove(LakeReader(catalog), configured=configured)


def _one(catalog: Catalog) -> SymbolProof:
    (one,) = _prove(catalog, "BTCUSDT").symbols
    return one


def test_consecutive_ids_are_complete(catalog: Catalog, fill: Fill) -> None:
    fill(range(7, 17))
    proof = _prove(catalog, "BTCUSDT")
    assert proof.complete
    assert proof.without_rows == []
    one = proof.symbols[0]
    assert (one.rows, one.distinct, one.first_id, one.last_id) == (10, 10, 7, 16)
    assert (one.duplicates, one.missing, one.declared, one.stream_rows) == (0, 0, 0, 5)


def test_the_newest_row_is_the_one_with_the_highest_id_not_the_last_to_come(
    catalog: Catalog, decoder: TradeDecoder, value_of: ValueOf
) -> None:
    writer = TableWriter(catalog, "trades", decoder, topics={Source.MAIN: "t@1"})
    writer.write([value_of(7, recv_ts_ns=5_000_000_999)], offsets={0: 1})
    # The past, fetched later than the tape was recorded, does not make the record fresh.
    writer.write([value_of(6, recv_ts_ns=9_000_000_000)], offsets={0: 2})
    assert _one(catalog).newest_ts_us == 5_000_000


def test_missing_ids_break_the_proof_and_are_named(catalog: Catalog, fill: Fill) -> None:
    fill([1, 2, 5, 6, 9])
    proof = _prove(catalog, "BTCUSDT")
    assert not proof.complete
    assert proof.symbols[0].missing == 4
    assert proof.symbols[0].missing_ranges == [IdRange(3, 4), IdRange(7, 8)]


def test_declared_gaps_that_cover_it_all_complete_the_proof(catalog: Catalog, fill: Fill) -> None:
    fill([1, 2, 5, 6, 9], gaps=[(3, 4), (7, 7), (7, 8)])
    proof = _prove(catalog, "BTCUSDT")
    assert proof.complete
    assert (proof.symbols[0].declared, proof.symbols[0].missing) == (4, 0)


def test_gaps_that_cover_a_part_leave_the_rest_missing(catalog: Catalog, fill: Fill) -> None:
    fill([1, 10], gaps=[(3, 4), (8, 12)])
    one = _one(catalog)
    assert one.missing_ranges == [IdRange(2, 2), IdRange(5, 7)]
    assert (one.declared, one.missing) == (4, 4)


def test_a_gap_of_another_symbol_covers_nothing(catalog: Catalog, fill: Fill) -> None:
    fill([1, 2], symbol="ADAUSDT", gaps=[(5, 5)])
    fill([4, 6])
    assert [one.complete for one in _prove(catalog).symbols] == [True, False]


def test_a_declared_id_that_has_a_row_all_the_same_is_not_counted(
    catalog: Catalog, fill: Fill
) -> None:
    fill([1, 2, 3], gaps=[(2, 2)])
    assert (_one(catalog).declared, _one(catalog).complete) == (0, True)


def test_a_repaired_id_is_declared_no_more(catalog: Catalog, fill: Fill) -> None:
    fill([1, 2, 5], gaps=[(3, 4)])
    assert (_one(catalog).declared, _one(catalog).complete) == (2, True)
    fill([4])
    assert (_one(catalog).declared, _one(catalog).complete) == (1, True)
    fill([3])
    one = _one(catalog)
    assert (one.rows, one.declared, one.missing, one.complete) == (5, 0, 0, True)


def test_the_past_is_complete_page_by_page(catalog: Catalog, fill: Fill) -> None:
    fill(range(30, 41))
    for page in (range(20, 30), range(10, 20), range(3, 10)):
        fill(page)
        one = _one(catalog)
        assert (one.first_id, one.missing, one.complete) == (page[0], 0, True)


def test_a_repair_that_was_only_announced_declares_nothing(
    catalog: Catalog, fill: Fill, gap_value: Callable[..., bytes]
) -> None:
    fill([1, 4])
    repaired = gap_value(2, 3, event="repaired", repaired_ts_us=1_767_225_600_000_009)
    gaps = TableWriter(catalog, "gaps", GapDecoder(), topics={Source.MAIN: "t.gaps@1"})
    gaps.write([repaired], offsets={0: 1})
    assert (_one(catalog).missing, _one(catalog).complete) == (2, False)


def test_duplicates_break_the_proof(
    catalog: Catalog, fill: Fill, decoder: TradeDecoder, value_of: ValueOf
) -> None:
    fill([1, 2, 3])
    # Past the writer, which would leave it out: the proof must not rely on the writer's books.
    ensure_table(catalog, "trades").append(decoder.decode([value_of(2)], Coverage()).rows)
    one = _one(catalog)
    assert (one.rows, one.distinct, one.duplicates, one.complete) == (4, 3, 1, False)


def test_a_configured_symbol_without_rows_fails(catalog: Catalog, fill: Fill) -> None:
    fill([1])
    proof = _prove(catalog, "BTCUSDT", "ETHUSDT", "ADAUSDT")
    assert not proof.complete
    assert proof.without_rows == ["ADAUSDT", "ETHUSDT"]
    assert proof.symbols[0].complete


def test_an_empty_table_proves_nothing(catalog: Catalog) -> None:
    ensure_table(catalog, "trades")
    assert _prove(catalog) == Proof(False, [], [])
    assert _prove(catalog, "X").without_rows == ["X"]


def test_the_highest_id_a_table_can_hold_is_proved_like_any_other(
    catalog: Catalog, decoder: TradeDecoder, value_of: ValueOf
) -> None:
    highest = 2**63 - 1
    writer = TableWriter(catalog, "trades", decoder, topics={Source.MAIN: "t@1"})
    ids = (highest, highest - 1, highest - 3)
    writer.write([value_of(i, trade_ts_us=1) for i in ids], offsets={0: 3})
    assert _one(catalog).missing_ranges == [IdRange(highest - 2, highest - 2)]
    writer.write([value_of(0)], offsets={0: 4})
    assert _one(catalog).missing == highest - 3
