import io
import json
from collections.abc import Callable, Sequence
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import fastavro
import pytest
from confluent_kafka import KafkaError

from k2.errors import RetryError
from k2.kafka.clients import Clients
from k2.kafka.connection import KafkaConnection
from k2.kafka.encoding import SCHEMA_TEXT, parse_schema
from k2.kafka.gap_records import GapEvent, encode_gap, encode_repaired
from k2.kafka.tape_reader import TapeReader
from k2.market import Gap, GapClass, IdRange


def trade(source_id: int, symbol: str = "X") -> bytes:
    fields: dict[str, Any] = {
        field["name"]: {"long": 0, "string": "", "boolean": None}.get(str(field["type"]))
        for field in json.loads(SCHEMA_TEXT)["fields"]
    }
    fields |= {
        "symbol": symbol,
        "source_sequence": source_id,
        "price": Decimal(1),
        "quantity": Decimal(1),
    }
    fields |= {"stream_kind": "AGG_TRADE", "taker_side": "BUY", "origin": "HEALED"}
    fields |= {"trade_ts_us": 1_000_000 + source_id}
    out = io.BytesIO()
    fastavro.schemaless_writer(out, parse_schema(SCHEMA_TEXT), fields)
    return b"\x00\x00\x00\x00\x01" + out.getvalue()


class FakeLog:
    """A partition: its values, and its two ends."""

    def __init__(self, values: Sequence[bytes | None], *, stable: int | None = None) -> None:
        self.values = values
        self.ends = {
            "read_uncommitted": len(values),
            "read_committed": len(values) if stable is None else stable,
        }
        self.read = 0
        self.problem: int | None = None
        self.now_s = 0.0
        self.shows_end = True
        self.record_takes_s = 0.0

    def reader(self, isolation: str = "read_uncommitted") -> TapeReader:
        make: Callable[..., Any] = lambda settings: FakeConsumer(self, settings)  # noqa: E731
        return TapeReader(
            KafkaConnection("kafka:9092"),
            shard=3,
            isolation=isolation,
            clients=Clients(make, make),
            monotonic_s=lambda: self.now_s,
        )


class FakeConsumer:
    def __init__(self, log: FakeLog, settings: dict[str, Any]) -> None:
        self._log, self._isolation = log, settings["isolation.level"]

    def get_watermark_offsets(self, partition: Any, timeout: float) -> tuple[int, int]:
        del timeout
        assert partition.partition == 3
        return 0, self._log.ends[self._isolation]

    def assign(self, partitions: list[Any]) -> None:
        assert self._isolation == "read_committed"
        assert partitions[0].partition == 3

    def poll(self, timeout_s: float) -> Any:
        log = self._log
        if log.problem is not None:
            return self._message(error=KafkaError(log.problem))
        if log.read < min(len(log.values), log.ends["read_committed"]):
            log.read += 1
            log.now_s += log.record_takes_s
            return self._message(value=log.values[log.read - 1], offset=log.read - 1)
        log.now_s += timeout_s
        if log.shows_end:
            return self._message(error=KafkaError(KafkaError._PARTITION_EOF), offset=log.read)
        return None

    def _message(self, value: Any = None, offset: int = 0, error: Any = None) -> Any:
        return SimpleNamespace(value=lambda: value, offset=lambda: offset, error=lambda: error)

    def close(self) -> None: ...


def test_the_ids_of_a_topic_are_told_whatever_their_order() -> None:
    values = [trade(i) for i in (30, 31, 20, 21, 22)] + [trade(5, "Y"), b"strange", None]
    found = FakeLog(values).reader().trades("t.repairs")
    assert found.last_ts_us == {"X": 1_000_022, "Y": 1_000_005}
    assert found.ids.as_pairs() == {"X": [(20, 22), (30, 31)], "Y": [(5, 5)]}


def test_declared_gaps_are_read_back_and_strange_records_passed_over() -> None:
    gap = Gap("X", IdRange(3, 5), GapClass.MISSING, "REST lacked it")
    values = [
        encode_gap(gap, declared_ts_us=1_767_225_600_000_000),
        b"\xff",
        None,
        encode_repaired("X", IdRange(4, 4), repaired_ts_us=1_767_225_600_000_001),
        b"{}",
    ]
    found = FakeLog(values).reader().gap_records("t.gaps")
    assert [one.event for one in found] == [GapEvent.DECLARED, GapEvent.REPAIRED]
    declared = [(one.symbol, one.ids) for one in found if one.event is GapEvent.DECLARED]
    assert declared == [("X", IdRange(3, 5))]


def test_an_empty_partition_holds_nothing() -> None:
    assert FakeLog([]).reader().gap_records("t.gaps") == []


def test_a_look_ends_before_an_open_transaction() -> None:
    log = FakeLog([trade(1), trade(2)], stable=1)
    assert log.reader("read_committed").trades("t").ids.as_pairs() == {"X": [(1, 1)]}


def test_whoever_has_fenced_waits_for_what_is_below_the_high_watermark() -> None:
    log = FakeLog([trade(1), trade(2)], stable=1)
    with pytest.raises(RetryError, match="its end is at 2"):
        log.reader("read_uncommitted").trades("t")


def test_what_does_not_come_is_not_waited_for_for_ever() -> None:
    log = FakeLog([trade(1)])
    log.ends = {"read_uncommitted": 9, "read_committed": 9}
    log.shows_end = False
    with pytest.raises(RetryError, match="nothing came for 30 s"):
        log.reader().trades("t")


def test_what_goes_on_coming_is_read_however_long_it_takes() -> None:
    log = FakeLog([trade(i) for i in range(10)])
    log.record_takes_s = 20.0
    assert log.reader().trades("t").ids.as_pairs() == {"X": [(0, 9)]}


def test_what_kafka_refuses_is_said() -> None:
    log = FakeLog([trade(1)])
    log.problem = KafkaError.TOPIC_AUTHORIZATION_FAILED
    with pytest.raises(RetryError, match="cannot read t"):
        log.reader().trades("t")
