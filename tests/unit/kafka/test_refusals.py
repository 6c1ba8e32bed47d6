from typing import Any

import msgspec
import pytest

from k2.errors import StopError
from k2.kafka.position import Identity, ShardPosition, SymbolPosition
from k2.kafka.refusals import (
    check_identity,
    check_newest,
    check_position,
    check_symbols,
)

IDENTITY = Identity("BINANCE", "production", "aggTrade", {"t": "id1", "t.gaps": "id2"}, 1, ["X"])
POSITION = ShardPosition({"X": SymbolPosition(10, 9)})


def test_the_same_identity_and_a_grown_symbol_set_are_fine() -> None:
    check_identity(None, IDENTITY)
    check_identity(IDENTITY, msgspec.structs.replace(IDENTITY, symbols=["A", "X"]))


@pytest.mark.parametrize(
    "change",
    [
        {"venue": "OTHER"},
        {"environment": "testnet"},
        {"stream_kind": "trade"},
        {"partitions": 2},
    ],
)
def test_a_tape_of_something_else_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(StopError, match="set KAFKA_TOPIC_PREFIX"):
        check_identity(msgspec.structs.replace(IDENTITY, **change), IDENTITY)


@pytest.mark.parametrize("topic_ids", [{"t": "new", "t.gaps": "id2"}, {"t": "id1"}])
def test_a_topic_made_anew_is_refused_with_both_ways_to_rebuild(topic_ids: dict[str, str]) -> None:
    with pytest.raises(StopError, match=r"--from-lake.*--from-topic"):
        check_identity(msgspec.structs.replace(IDENTITY, topic_ids=topic_ids), IDENTITY)


def test_an_empty_topic_needs_no_position() -> None:
    check_position(None, topic_has_records=False, tail={})


def test_trades_without_a_position_are_refused() -> None:
    with pytest.raises(StopError, match="k2 positions rebuild --from-topic"):
        check_position(None, topic_has_records=True, tail={"X": 9})


def test_a_position_that_agrees_with_the_end_of_the_topic_is_fine() -> None:
    check_position(POSITION, topic_has_records=True, tail={"X": 9})
    check_position(POSITION, topic_has_records=False, tail={})  # retention took the trades
    declared_since = ShardPosition({"X": SymbolPosition(15, 9)})
    check_position(declared_since, topic_has_records=True, tail={"X": 9})


@pytest.mark.parametrize("tail", [{"X": 8}, {"X": 10}, {"X": 9, "Y": 1}])
def test_a_topic_that_ends_elsewhere_than_the_position_is_refused(tail: dict[str, int]) -> None:
    with pytest.raises(StopError, match=r"k2 positions rebuild --from-topic"):
        check_position(POSITION, topic_has_records=True, tail=tail)


def test_a_tape_whose_symbols_are_partly_ours_is_ours_to_stand_by_for() -> None:
    check_symbols(["A", "X"], ["X", "Y"])
    check_symbols([], ["X"])
    check_symbols(["X"], [])


def test_a_process_with_other_symbols_altogether_is_refused_and_told_of_shards() -> None:
    with pytest.raises(StopError, match=r"A, B.*set to X: .*K2_SHARDS.*K2_SYMBOLS_FILE"):
        check_symbols(["B", "A"], ["X"])
    with pytest.raises(StopError, match="S0, S1, S2, S3, S4 and 3 more"):
        check_symbols([f"S{i}" for i in range(8)], ["X"])


TAPE_END = SymbolPosition(10, 9, 0, 5_000)


def test_an_exchange_that_goes_on_where_the_tape_ends_is_fine() -> None:
    for newest_id in (9, 10, 10**12):
        check_newest("X", TAPE_END, newest_id=newest_id, newest_ts_us=None)
    check_newest("X", SymbolPosition(0, None), newest_id=None, newest_ts_us=None)


@pytest.mark.parametrize("newest_id", [8, 0, None])
def test_an_exchange_whose_ids_were_reset_is_refused(newest_id: int | None) -> None:
    newest_ts_us = None if newest_id is None else 5_001
    with pytest.raises(StopError, match="set KAFKA_TOPIC_PREFIX"):
        check_newest("X", TAPE_END, newest_id=newest_id, newest_ts_us=newest_ts_us)


def test_a_rest_that_trails_is_told_by_the_age_of_its_newest_trade() -> None:
    check_newest("X", TAPE_END, newest_id=3, newest_ts_us=5_000)
    unknown = SymbolPosition(10, 9)
    for position, newest_ts_us in ((TAPE_END, None), (unknown, 4_000)):
        with pytest.raises(StopError):
            check_newest("X", position, newest_id=3, newest_ts_us=newest_ts_us)
