from collections.abc import Iterable

from k2.ingestion.rebuilt_position import position_from
from k2.kafka.gap_records import GapEvent, GapRecord
from k2.kafka.position import OPEN_GAPS_MAX, OpenGap, ShardPosition, SymbolPosition
from k2.market import GapClass, IdRange
from k2.tape.coverage import Coverage

X = "BTCUSDT"
TS_US = 1_767_225_600_000_000


def ids(*ranges: tuple[int, int], symbol: str = X) -> Coverage:
    return Coverage({symbol: ranges})


def gap(
    first_id: int, last_id: int, gap_class: GapClass = GapClass.MISSING, symbol: str = X
) -> GapRecord:
    return GapRecord(
        GapEvent.DECLARED, symbol, IdRange(first_id, last_id), gap_class, "", TS_US, None
    )


def repaired(first_id: int, last_id: int) -> GapRecord:
    found = IdRange(first_id, last_id)
    return GapRecord(GapEvent.REPAIRED, X, found, GapClass.MISSING, "", TS_US, TS_US + 9)


def rebuilt(
    tape: Coverage,
    *,
    repairs: Coverage | None = None,
    gaps: Iterable[GapRecord] = (),
    known: dict[str, SymbolPosition] | None = None,
    backfills: dict[str, int] | None = None,
) -> ShardPosition:
    return position_from(
        tape,
        repairs=repairs or Coverage(),
        gaps=list(gaps),
        known=known or {},
        backfills=backfills or {},
        last_ts_us={},
    )


def open_ids(position: ShardPosition) -> list[tuple[int, int]]:
    return [(one.ids.first_id, one.ids.last_id) for one in position.open_gaps]


def test_a_tape_begins_with_its_first_trade_and_ends_after_its_last() -> None:
    assert rebuilt(ids((390, 400))) == ShardPosition({X: SymbolPosition(401, 400, 390)})


def test_the_time_of_the_last_trade_is_kept_with_it() -> None:
    found = position_from(
        ids((390, 400)),
        repairs=Coverage(),
        gaps=[gap(401, 402)],
        known={"THIN": SymbolPosition(8, 7, 1, 5)},
        backfills={},
        last_ts_us={X: TS_US},
    )
    assert found.symbols == {
        X: SymbolPosition(403, 400, 390, TS_US),
        "THIN": SymbolPosition(8, 7, 1, 5),
    }


def test_a_gap_declared_right_after_the_last_trade_moves_the_end() -> None:
    found = rebuilt(ids((390, 400)), gaps=[gap(403, 404), gap(401, 402)])
    assert found.symbols == {X: SymbolPosition(405, 400, 390)}


def test_ids_between_the_last_trade_and_a_later_gap_are_not_passed_over() -> None:
    # The archive puts gaps into the lake before trades: 401..499 may be on their way.
    found = rebuilt(ids((390, 400)), gaps=[gap(500, 500)])
    assert found == ShardPosition({X: SymbolPosition(401, 400, 390)})


def test_what_is_declared_missing_and_not_repaired_is_open() -> None:
    found = rebuilt(
        ids((390, 392), (400, 400), (403, 409)),
        repairs=ids((394, 394)),
        gaps=[
            *(gap(393, 399), gap(401, 401, GapClass.VOID), gap(402, 402, GapClass.REJECTED)),
            *(repaired(394, 394), repaired(397, 398)),
        ],
    )
    assert open_ids(found) == [(393, 393), (395, 396), (399, 399)]
    assert found.open_gaps[0] == OpenGap(X, IdRange(393, 393), TS_US)
    assert found.symbols == {X: SymbolPosition(410, 409, 390)}


def test_no_more_gaps_are_looked_for_than_a_position_may_hold() -> None:
    gaps = [gap(2 * i, 2 * i) for i in range(OPEN_GAPS_MAX + 5)]
    found = rebuilt(ids((9_000, 9_001)), gaps=gaps)
    assert len(found.open_gaps) == OPEN_GAPS_MAX
    assert found.open_gaps[0].ids == IdRange(10, 10)


def test_a_repair_right_behind_the_tape_is_not_its_end() -> None:
    # The next record carries the last id of the trades topic as its previous_id.
    found = rebuilt(ids((390, 400)), repairs=ids((401, 401)), gaps=[gap(401, 402)])
    assert found.symbols == {X: SymbolPosition(403, 400, 390)}
    assert open_ids(found) == [(402, 402)]


def test_the_past_that_was_filled_belongs_to_the_tape() -> None:
    found = rebuilt(ids((390, 400)), repairs=ids((200, 389)), backfills={X: 100})
    assert found == ShardPosition({X: SymbolPosition(401, 400, 200)}, (), {X: 100})


def test_a_page_that_ends_in_a_declared_gap_is_not_filled_again() -> None:
    found = rebuilt(
        ids((390, 400)),
        repairs=ids((203, 389)),
        gaps=[gap(201, 202), gap(200, 200, GapClass.VOID)],
        backfills={X: 200},
    )
    assert found.symbols[X].first_id == 200
    assert found.backfills == {}
    assert open_ids(found) == [(201, 202)]


def test_what_retention_removed_from_the_topic_is_still_of_the_tape() -> None:
    found = rebuilt(ids((390, 400)), known={X: SymbolPosition(350, 349, 7)})
    assert found.symbols == {X: SymbolPosition(401, 400, 7)}


def test_a_tape_without_trades_in_the_topic_keeps_its_end_whatever_old_gaps_say() -> None:
    known = {X: SymbolPosition(350, 349, 7)}
    assert rebuilt(Coverage(), known=known).symbols == known
    assert rebuilt(Coverage(), known=known, gaps=[gap(20, 30)]).symbols == known
    moved = rebuilt(Coverage(), known=known, gaps=[gap(350, 351)])
    assert moved.symbols == {X: SymbolPosition(352, 349, 7)}


def test_a_tape_of_nothing_but_a_gap_has_an_end_and_no_beginning() -> None:
    found = rebuilt(Coverage(), gaps=[gap(5, 6, symbol="NEWUSDT")])
    assert found.symbols == {"NEWUSDT": SymbolPosition(7, None, None)}


def test_a_backfill_of_a_symbol_without_a_tape_is_forgotten() -> None:
    assert rebuilt(ids((1, 2)), backfills={"GONEUSDT": 0}).backfills == {}
