from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from k2.errors import RejectError
from k2.ingestion import gap_list
from k2.ingestion.gap_list import GapState, gap_lines, list_gaps
from k2.kafka.connection import KafkaConnection
from k2.kafka.gap_records import GapEvent, GapRecord
from k2.kafka.position import OpenGap, ShardPosition, ShardRecord, SymbolPosition
from k2.market import GapClass, IdRange
from k2.settings import Settings

X = "BTCUSDT"


def declared(
    first_id: int, last_id: int, gap_class: GapClass = GapClass.MISSING, symbol: str = X
) -> GapRecord:
    return GapRecord(GapEvent.DECLARED, symbol, IdRange(first_id, last_id), gap_class, "r", 7, None)


def repaired(first_id: int, last_id: int, at_us: int = 9, symbol: str = X) -> GapRecord:
    ids = IdRange(first_id, last_id)
    return GapRecord(GapEvent.REPAIRED, symbol, ids, GapClass.MISSING, "", 7, at_us)


def open_gap(first_id: int, last_id: int, symbol: str = X) -> OpenGap:
    return OpenGap(symbol, IdRange(first_id, last_id), 7)


def told(
    records: Sequence[GapRecord], open_gaps: Sequence[OpenGap] = ()
) -> list[tuple[int, int, str, int | None]]:
    lines = gap_lines(records, repairs=records, open_gaps=open_gaps)
    return [(one.first_id, one.last_id, one.state.value, one.repaired_ts_us) for one in lines]


def test_a_gap_that_is_looked_for_is_open() -> None:
    assert told([declared(3, 5)], [open_gap(3, 5)]) == [(3, 5, "open", None)]


def test_a_gap_is_cut_where_its_ids_have_fared_differently() -> None:
    records = [declared(3, 9), repaired(4, 4, 11), repaired(7, 8, 12)]
    found = told(records, [open_gap(3, 3), open_gap(5, 6)])
    assert sorted(found) == [
        (3, 3, "open", None),
        (4, 4, "repaired", 11),
        (5, 6, "open", None),
        (7, 8, "repaired", 12),
        (9, 9, "closed", None),
    ]
    lines = gap_lines(records, repairs=records, open_gaps=())
    assert sum(one.ids for one in lines) == 7


def test_what_is_known_to_be_nothing_is_closed() -> None:
    records = [declared(3, 3, GapClass.VOID), declared(4, 4, GapClass.REJECTED)]
    assert told(records) == [(3, 3, "closed", None), (4, 4, "closed", None)]


def test_a_repair_outweighs_a_position_that_was_read_before_it() -> None:
    assert told([declared(3, 3), repaired(3, 3)], [open_gap(3, 3)]) == [(3, 3, "repaired", 9)]


def test_another_symbols_fate_is_its_own() -> None:
    records = [declared(3, 3), repaired(3, 3, symbol="ETHUSDT")]
    assert told(records, [open_gap(3, 3, symbol="ETHUSDT")]) == [(3, 3, "closed", None)]


def test_what_is_looked_for_is_told_where_the_kafka_that_had_its_record_was_lost() -> None:
    looked_for = [open_gap(12, 20), open_gap(3, 5), open_gap(1, 1, symbol="ETHUSDT")]
    records = [declared(3, 5), declared(14, 14), repaired(19, 20)]
    lines = gap_lines(records, repairs=records, open_gaps=looked_for)
    told = [(one.symbol, one.first_id, one.last_id, one.state.value) for one in lines]
    assert sorted(told) == [
        (X, 3, 5, "open"),
        (X, 12, 13, "open"),
        (X, 14, 14, "open"),
        (X, 15, 18, "open"),
        ("ETHUSDT", 1, 1, "open"),
    ]
    (lost,) = [one for one in lines if one.symbol == "ETHUSDT"]
    assert (lost.gap_class, lost.declared_ts_us, lost.ids) == (GapClass.MISSING, 7, 1)


def test_every_shard_is_asked_and_only_the_named_symbols_are_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written = {0: [declared(3, 5), declared(1, 1)], 1: [declared(7, 7, symbol="ETHUSDT")]}

    class Reader:
        def __init__(self, _kafka: KafkaConnection, *, shard: int, isolation: str) -> None:
            assert isolation == "read_committed"
            self._shard = shard

        def gap_records(self, topic: str) -> list[GapRecord]:
            assert topic == "t.gaps"
            return written[self._shard]

    def record(shard: int) -> ShardRecord:
        tapes = [
            ShardPosition({X: SymbolPosition(9, 8, 0)}, (open_gap(3, 5),)),
            ShardPosition({"ETHUSDT": SymbolPosition(9, 8, 0)}),
        ]
        return ShardRecord(None, tapes[shard])

    room: Any = SimpleNamespace(
        kafka=KafkaConnection("k:1"),
        names=SimpleNamespace(gaps="t.gaps", trades="t"),
        partitions=2,
        record=record,
    )
    monkeypatch.setattr(gap_list, "find_room", lambda _settings: room)
    monkeypatch.setattr(gap_list, "TapeReader", Reader)
    everything = list_gaps(Settings(), symbols=())
    assert [(one.symbol, one.first_id) for one in everything.gaps] == [
        (X, 1),
        (X, 3),
        ("ETHUSDT", 7),
    ]
    assert everything.open_ids == 3
    assert [one.symbol for one in list_gaps(Settings(), symbols={"ETHUSDT"}).gaps] == ["ETHUSDT"]
    assert everything.gaps[0].state is GapState.CLOSED
    with pytest.raises(RejectError, match="t has no tape of NOPE, it has BTCUSDT ETHUSDT"):
        list_gaps(Settings(), symbols={"NOPE", "ETHUSDT"})
