from k2.ingestion.repair import position_from
from k2.kafka.position import SymbolPosition
from k2.market import IdRange


def test_a_tape_ends_after_its_last_trade() -> None:
    assert position_from({"BTCUSDT": 400}, []) == {"BTCUSDT": SymbolPosition(401, 400)}


def test_a_gap_declared_right_after_the_last_trade_moves_the_end() -> None:
    gaps = [("BTCUSDT", IdRange(403, 404)), ("BTCUSDT", IdRange(401, 402))]
    assert position_from({"BTCUSDT": 400}, gaps) == {"BTCUSDT": SymbolPosition(405, 400)}


def test_ids_between_the_last_trade_and_a_later_gap_are_not_passed_over() -> None:
    # The archive puts gaps into the lake before trades: 401..499 may be on their way.
    gaps = [("BTCUSDT", IdRange(500, 500))]
    assert position_from({"BTCUSDT": 400}, gaps) == {"BTCUSDT": SymbolPosition(401, 400)}


def test_a_gap_inside_the_tape_changes_nothing() -> None:
    gaps = [("BTCUSDT", IdRange(10, 20))]
    assert position_from({"BTCUSDT": 400}, gaps) == {"BTCUSDT": SymbolPosition(401, 400)}
