import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from k2.errors import RetryError, StopError
from k2.ingestion import repair
from k2.ingestion.lake_look import lake_holds
from k2.ingestion.positions_look import Room, ShardShown
from k2.ingestion.repair import (
    rebuild_from_lake,
    rebuild_from_topic,
    refuse_running_writer,
)
from k2.kafka.connection import KafkaConnection
from k2.kafka.gap_records import GapEvent, GapRecord
from k2.kafka.partitioning import shard_of
from k2.kafka.position import (
    Identity,
    OpenGap,
    ShardPosition,
    ShardRecord,
    SymbolPosition,
    decode_identity,
    decode_position,
)
from k2.kafka.tape_reader import Held
from k2.kafka.topics import TopicFacts, TopicNames
from k2.kafka.transaction import Record
from k2.lake.commit_plan import Source
from k2.lake.decoding import GapDecoder
from k2.lake.tables import ensure_table, open_catalog
from k2.lake.writer import TableWriter
from k2.market import GapClass, IdRange
from k2.settings import Settings
from k2.tape.coverage import Coverage

NAMES = TopicNames.of("market")
ROOM = Room(KafkaConnection("kafka:9092"), NAMES, {NAMES.trades: TopicFacts("1", 1)})
X, TS_US = "BTCUSDT", 1_767_225_600_000_000


def declared(first_id: int, last_id: int, symbol: str = X) -> GapRecord:
    ids = IdRange(first_id, last_id)
    return GapRecord(GapEvent.DECLARED, symbol, ids, GapClass.MISSING, "", TS_US, None)


class FakeKafka:
    """What the shards of a room hold, and what was written to them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, partitions: int = 1) -> None:
        self.room = Room(
            KafkaConnection("kafka:9092"),
            NAMES,
            {topic: TopicFacts(f"id-{topic}", partitions) for topic in NAMES.all()},
        )
        self.partitions = partitions
        self.trades: dict[int, Coverage] = {}
        self.repairs: dict[int, Coverage] = {}
        self.gaps: dict[int, list[GapRecord]] = {}
        self.old: dict[int, ShardRecord] = {}
        self.retention_began_at = 0
        self.written: dict[int, list[Record]] = {}
        monkeypatch.setattr(repair, "find_room", lambda _settings: self.room)
        monkeypatch.setattr(repair, "create_topics", lambda *_a, **_k: [])
        monkeypatch.setattr(repair, "KafkaAdmin", lambda _settings: None)
        monkeypatch.setattr(repair, "refuse_running_writer", lambda _room: None)
        monkeypatch.setattr(repair, "first_offset", lambda *_a: self.retention_began_at)
        monkeypatch.setattr(repair, "end_offset", lambda *_a: 77)
        monkeypatch.setattr(
            repair,
            "read_shard",
            lambda *_a, shard, **_k: self.old.get(shard, ShardRecord(None, None)),
        )
        monkeypatch.setattr(
            repair, "read_tail", lambda *_a, shard, **_k: (shard in self.trades, {})
        )
        monkeypatch.setattr(
            repair, "TapeReader", lambda _bootstrap, *, shard: FakeReader(self, shard)
        )
        monkeypatch.setattr(
            repair, "_fencing_producer", lambda _room, shard: FakeProducer(self, shard)
        )

    def position(self, shard: int = 0) -> ShardPosition:
        """Return what was written last."""
        return decode_position(self.written[shard][1].value)


class FakeReader:
    def __init__(self, kafka: FakeKafka, shard: int) -> None:
        self._kafka, self._shard = kafka, shard

    def trades(self, topic: str) -> Held:
        where = {NAMES.trades: self._kafka.trades, NAMES.repairs: self._kafka.repairs}[topic]
        return Held(where.get(self._shard, Coverage()), {})

    def gap_records(self, topic: str) -> list[GapRecord]:
        assert topic == NAMES.gaps
        return self._kafka.gaps.get(self._shard, [])


class FakeProducer:
    def __init__(self, kafka: FakeKafka, shard: int) -> None:
        self._kafka, self.shard = kafka, shard

    def commit(self, records: list[Record]) -> None:
        self._kafka.written[self.shard] = records


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(symbols=(X,), lake_dir=tmp_path / "lake", topic_prefix="market")


def fill_lake(settings: Settings, ids: Coverage, gaps: list[dict[str, Any]]) -> None:
    """Make a lake whose books say that it holds these ids."""
    catalog = open_catalog(lake_dir=settings.lake_path)
    table = ensure_table(catalog, "trades")
    with table.transaction() as change:
        change.set_properties({"k2.coverage": json.dumps(ids.as_pairs())})
    writer = TableWriter(catalog, "gaps", GapDecoder(), topics={Source.MAIN: "t.gaps@1"})
    base = {"symbol": X, "class": "missing", "reason": "", "declared_ts_us": TS_US}
    writer.write([json.dumps({**base, **gap}).encode() for gap in gaps], offsets={0: len(gaps)})


def test_a_rebuild_reads_trades_repairs_and_gaps(
    monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    kafka = FakeKafka(monkeypatch)
    kafka.trades[0] = Coverage({X: [(10, 19), (22, 30)]})
    kafka.repairs[0] = Coverage({X: [(5, 9), (20, 20)]})
    kafka.gaps[0] = [declared(20, 21)]
    kafka.old[0] = ShardRecord(None, ShardPosition({}, (), {X: 2}))
    (shown,) = rebuild_from_topic(settings)
    assert kafka.position() == ShardPosition(
        {X: SymbolPosition(31, 30, 5)},
        (OpenGap(X, IdRange(21, 21), TS_US),),
        {X: 2},
        accepted_to=77,
    )
    assert shown == ShardShown(0, ShardRecord(shown.record.identity, kafka.position()))
    identity = decode_identity(kafka.written[0][0].value)
    assert identity.topic_ids == {
        NAMES.trades: f"id-{NAMES.trades}",
        NAMES.gaps: f"id-{NAMES.gaps}",
    }


def test_each_shards_identity_names_its_own_symbols(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    kafka = FakeKafka(monkeypatch, partitions=4)
    symbols = ("BTCUSDT", "ETHUSDT", "BNBUSDT", "ADAUSDT", "XRPUSDT")
    rebuild_from_topic(Settings(symbols=symbols, lake_dir=tmp_path / "lake"))
    told = {
        shard: decode_identity(records[0].value).symbols for shard, records in kafka.written.items()
    }
    assert sorted(name for names in told.values() for name in names) == sorted(symbols)
    assert all(shard_of(name, partitions=4) == at for at, names in told.items() for name in names)


def test_an_unreadable_position_is_a_reason_to_rebuild(
    monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    kafka = FakeKafka(monkeypatch)
    kafka.trades[0] = Coverage({X: [(10, 19)]})

    def unreadable(*_where: Any, **_how: Any) -> ShardRecord:
        raise StopError("not a position")

    monkeypatch.setattr(repair, "read_shard", unreadable)
    rebuild_from_topic(settings)
    assert kafka.position() == ShardPosition({X: SymbolPosition(20, 19, 10)}, accepted_to=77)


def recorded(kafka: FakeKafka, symbols: list[str], position: ShardPosition | None) -> None:
    """Have a writer's word on what is recorded."""
    topic_ids = {topic: f"id-{topic}" for topic in (NAMES.trades, NAMES.gaps)}
    identity = Identity("BINANCE", "production", "aggTrade", topic_ids, 1, symbols)
    kafka.old[0] = ShardRecord(identity, position)


def active_set(kafka: FakeKafka) -> list[str]:
    return decode_identity(kafka.written[0][0].value).symbols


SOL = "SOLUSDT"
SOL_AND_LEFT = ShardPosition({SOL: SymbolPosition(10, 9, 1), "XRPUSDT": SymbolPosition(500, 499)})


@pytest.mark.parametrize("retention_began_at", [0, 55])
@pytest.mark.parametrize("names", [("ALL:USDT",), (SOL, X), (X,)])
def test_what_is_recorded_stays_as_the_identity_says_whatever_the_settings_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, names: tuple[str, ...], retention_began_at: int
) -> None:
    kafka = FakeKafka(monkeypatch)
    kafka.trades[0] = Coverage({SOL: [(1, 9)]})
    kafka.retention_began_at = retention_began_at
    recorded(kafka, [SOL], SOL_AND_LEFT)
    rebuild_from_topic(Settings(symbols=names, lake_dir=tmp_path, topic_prefix="market"))
    assert active_set(kafka) == [SOL], "XRPUSDT had left"
    assert kafka.position().symbols.keys() == {SOL, "XRPUSDT"}
    kafka.trades.clear()
    fill_lake(Settings(lake_dir=tmp_path), Coverage({SOL: [(1, 9)], "XRPUSDT": [(1, 499)]}), [])
    rebuild_from_lake(Settings(symbols=names, lake_dir=tmp_path, topic_prefix="market"))
    assert active_set(kafka) == [SOL]


def test_a_name_no_symbol_can_have_is_left_out_of_what_is_recorded(
    monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    kafka = FakeKafka(monkeypatch)
    kafka.trades[0] = Coverage({SOL: [(1, 9)]})
    recorded(kafka, ["ALL:USDT", SOL], SOL_AND_LEFT)
    rebuild_from_topic(settings)
    assert active_set(kafka) == [SOL], "an earlier rebuild had taken all:USDT for a symbol"


@pytest.mark.parametrize(
    ("file", "active"),
    [
        (f"{SOL}\nADAUSDT\nall:USDT\n", ["ADAUSDT", SOL, "XRPUSDT"]),
        ("-XRPUSDT\n", [SOL]),
    ],
)
def test_without_an_identity_what_the_symbols_file_wants_and_has_a_tape_is_recorded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, file: str, active: list[str]
) -> None:
    kafka = FakeKafka(monkeypatch)
    kafka.trades[0] = Coverage({SOL: [(1, 9)], "XRPUSDT": [(3, 4)]})
    path = tmp_path / "symbols"
    path.write_text(file)
    rebuild_from_topic(Settings(symbols_file=path, lake_dir=tmp_path, topic_prefix="market"))
    assert active_set(kafka) == active


def test_where_retention_removed_records_the_lake_knows_how_the_tape_begins_and_ends(
    monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    fill_lake(settings, Coverage({X: [(1, 15)], "THINUSDT": [(70, 79)]}), [])
    kafka = FakeKafka(monkeypatch)
    kafka.retention_began_at = 1_000
    kafka.trades[0] = Coverage({X: [(10, 19)]})
    kafka.gaps[0] = [declared(50, 60, symbol="THINUSDT")]
    rebuild_from_topic(settings)
    assert kafka.position().symbols == {
        X: SymbolPosition(20, 19, 1),
        "THINUSDT": SymbolPosition(80, 79, 70),
    }


def test_the_lake_knows_where_a_tape_begins_whose_position_does_not(
    monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    fill_lake(settings, Coverage({X: [(3, 15)]}), [])
    kafka = FakeKafka(monkeypatch)
    kafka.retention_began_at = 1_000
    kafka.old[0] = ShardRecord(None, ShardPosition({X: SymbolPosition(20, 19)}))
    rebuild_from_topic(settings)
    assert kafka.position().symbols == {X: SymbolPosition(20, 19, 3)}


def test_a_tape_whose_end_nobody_knows_any_more_is_refused(
    monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    kafka = FakeKafka(monkeypatch)
    kafka.retention_began_at = 1_000
    with pytest.raises(StopError, match=r"BTCUSDT: no trade is left.*--lake") as refused:
        rebuild_from_topic(settings)
    assert kafka.written == {}
    assert "--symbols" not in str(refused.value), "this command has no such option"


def test_a_lost_kafka_gets_its_positions_from_the_lake(
    monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    gaps: list[dict[str, Any]] = [
        {"first_id": 14, "last_id": 16},
        {"first_id": 16, "last_id": 16, "event": "repaired", "repaired_ts_us": TS_US + 9},
        {"first_id": 18, "last_id": 18, "class": "void"},
    ]
    fill_lake(settings, Coverage({X: [(5, 13), (15, 17), (19, 30)]}), gaps)
    held, records = lake_holds(settings)
    assert held.ids.ranges(X)[0] == IdRange(5, 13)
    assert [(one.event, one.declared_ts_us, one.repaired_ts_us) for one in records] == [
        (GapEvent.DECLARED, TS_US, None),
        (GapEvent.REPAIRED, TS_US, TS_US + 9),
        (GapEvent.DECLARED, TS_US, None),
    ]
    kafka = FakeKafka(monkeypatch)
    rebuild_from_lake(settings)
    assert kafka.position() == ShardPosition(
        {X: SymbolPosition(31, 30, 5)}, (OpenGap(X, IdRange(14, 14), TS_US),)
    )
    kafka.trades[0] = Coverage({X: [(40, 41)]})
    with pytest.raises(StopError, match="holds trades"):
        rebuild_from_lake(settings)


def test_topics_that_were_just_created_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[int | None] = [None, None, 0, 0]
    slept: list[float] = []

    def end_offset(*_where: Any) -> int:
        answer = answers.pop(0)
        if answer is None:
            raise RetryError("not leader")
        return answer

    monkeypatch.setattr(repair, "end_offset", end_offset)
    clock = SimpleNamespace(sleep=slept.append, monotonic=lambda: sum(slept))
    monkeypatch.setattr(repair, "time", clock)
    repair._until_led(ROOM, [NAMES.trades, NAMES.gaps])
    assert (len(slept), answers) == (2, [])
    answers += [None] * 100
    with pytest.raises(RetryError, match="not leader"):
        repair._until_led(ROOM, [NAMES.trades])


class FakeGroup:
    """Says, call by call, how many members there are and where the positions end."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.members, self.ends = [0], [7]
        self.now_s = 0.0
        monkeypatch.setattr(repair, "KafkaAdmin", lambda _settings: None)
        monkeypatch.setattr(repair, "other_members", self._members)
        monkeypatch.setattr(repair, "end_offset", lambda *_a: self._next(self.ends))
        clock = SimpleNamespace(sleep=self._sleep, monotonic=lambda: self.now_s)
        monkeypatch.setattr(repair, "time", clock)

    def _members(self, _admin: Any, group: str, *, client_id: str) -> int:
        assert (group, client_id) == ("k2-capture-market.binance", "")
        return self._next(self.members)

    def _sleep(self, seconds: float) -> None:
        self.now_s += seconds

    @staticmethod
    def _next(script: list[int]) -> int:
        return script.pop(0) if len(script) > 1 else script[0]


@pytest.fixture
def group(monkeypatch: pytest.MonkeyPatch) -> FakeGroup:
    return FakeGroup(monkeypatch)


def test_nobody_about_means_go_on(group: FakeGroup) -> None:
    refuse_running_writer(ROOM)
    assert group.now_s < 2


def test_a_writer_that_commits_is_refused_at_once(group: FakeGroup) -> None:
    group.ends = [7, 9]
    with pytest.raises(StopError, match="is writing these positions right now"):
        refuse_running_writer(ROOM)


def test_a_writer_whose_market_is_quiet_is_refused_by_the_lease(group: FakeGroup) -> None:
    group.members = [2]
    with pytest.raises(StopError, match=r"2 `k2 stream`.*stop every one"):
        refuse_running_writer(ROOM)


def test_a_writer_that_was_killed_is_waited_for_until_its_lease_is_forgotten(
    group: FakeGroup,
) -> None:
    group.members = [1, 1, 1, 0]
    refuse_running_writer(ROOM)
    assert group.now_s < 4
