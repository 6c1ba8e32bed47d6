from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, Self

import msgspec
import pytest
from confluent_kafka import KafkaError

from k2.binance.rest import UnknownSymbolError
from k2.errors import ReconcileError, RejectError, RetryError
from k2.ingestion import backfill_order, venue
from k2.ingestion.backfill_order import (
    Order,
    Progress,
    Stage,
    id_since,
    moment,
    order_backfill,
    watch,
)
from k2.kafka.clients import Clients
from k2.kafka.connection import KafkaConnection
from k2.kafka.position import (
    BackfillRequest,
    Identity,
    ShardPosition,
    ShardRecord,
    SymbolPosition,
    decode_request,
    request_key,
)
from k2.market import StreamKind
from k2.settings import Settings

X = "BTCUSDT"


def record(
    first_id: int | None = 500, *, backfills: dict[str, int] | None = None, **more: Any
) -> ShardRecord:
    position = ShardPosition({X: SymbolPosition(900, 899, first_id)}, (), backfills or {})
    return ShardRecord(None, position, **more)


class FakeProducer:
    """Takes one record and says what the broker would."""

    def __init__(self, settings: dict[str, Any], problem: int | None) -> None:
        assert settings["acks"] == "all"
        assert settings["enable.idempotence"]
        assert "transactional.id" not in settings
        self.produced: list[Any] = []
        self._problem = problem
        self._told: Any = None

    def produce(self, topic: str, **how: Any) -> None:
        self._told = how.pop("on_delivery")
        self.produced.append((topic, how))

    def flush(self, _timeout_s: float) -> None:
        problem = None if self._problem is None else KafkaError(self._problem)
        self._told(problem, SimpleNamespace(offset=lambda: 41))


class FakeKafka:
    def __init__(self, problem: int | None = None) -> None:
        self.producers: list[FakeProducer] = []
        self._problem = problem

    @property
    def clients(self) -> Clients:
        def producer(settings: dict[str, Any]) -> FakeProducer:
            self.producers.append(FakeProducer(settings, self._problem))
            return self.producers[-1]

        return Clients(producer, producer)


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> Any:
    made = SimpleNamespace(
        kafka=KafkaConnection("kafka:9092"),
        names=SimpleNamespace(trades="t", positions="t.positions"),
        partitions=1,
        said=record(),
    )
    made.record = lambda _shard: made.said
    monkeypatch.setattr(backfill_order, "find_room", lambda _settings: made)
    return made


def ask(kafka: FakeKafka, from_id: int = 100, symbol: str = X) -> Order | Progress:
    return order_backfill(Settings(), symbol=symbol, from_id=from_id, clients=kafka.clients)


@pytest.mark.usefixtures("room")
def test_a_wish_is_a_record_in_the_shards_partition_under_its_own_key() -> None:
    kafka = FakeKafka()
    order = ask(kafka)
    assert isinstance(order, Order)
    assert (order.shard, order.offset, order.began_at) == (0, 41, 500)
    ((topic, how),) = kafka.producers[0].produced
    assert (topic, how["partition"]) == ("t.positions", 0)
    request = decode_request(how["value"])
    assert (request.symbol, request.from_id) == (X, 100)
    assert how["key"] == request_key(request.request_id)
    again = ask(kafka)
    assert isinstance(again, Order)
    assert again.request.request_id != request.request_id


@pytest.mark.parametrize("from_id", [500, 501, 899])
def test_a_tape_that_begins_there_or_earlier_leaves_nothing_to_do(room: Any, from_id: int) -> None:
    kafka = FakeKafka()
    found = ask(kafka, from_id)
    assert isinstance(found, Progress)
    assert (found.stage, found.first_id) == (Stage.NOTHING_TO_DO, 500)
    assert kafka.producers == []
    room.said = record(first_id=None)  # older than the field: the writer begins at its end
    assert isinstance(ask(kafka, from_id=899), Order)


@pytest.mark.usefixtures("room")
@pytest.mark.parametrize("from_id", [900, 10_000])
def test_an_id_beyond_the_tape_is_refused(from_id: int) -> None:
    kafka = FakeKafka()
    with pytest.raises(RejectError, match=r"beyond the end of its tape.*500 to 899"):
        ask(kafka, from_id)
    assert kafka.producers == []


class FirstRest:
    """An exchange whose ids begin somewhere."""

    first_id: int | None = 200
    kinds: list[object]

    def __init__(self, *_where: Any, kind: object, **_how: Any) -> None:
        self.kinds.append(kind)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exc: object) -> None: ...

    async def rows_from(self, _symbol: str, *, from_id: int) -> list[Any]:
        if self.first_id is None:
            raise RetryError("503")
        return [SimpleNamespace(source_id=max(from_id, self.first_id))]


@pytest.fixture
def first_rest(room: Any, monkeypatch: pytest.MonkeyPatch) -> type[FirstRest]:
    class Rest(FirstRest):
        kinds: list[object] = []  # noqa: RUF012 - one list for each test

    monkeypatch.setattr(venue, "RestClient", Rest)
    room.said = ShardRecord(identity(), record().position)
    return Rest


@pytest.mark.parametrize(("first_id", "begins_at"), [(200, 200), (100, 100), (50, 100)])
def test_a_wish_goes_no_further_back_than_the_exchange(
    first_rest: type[FirstRest], first_id: int, begins_at: int
) -> None:
    first_rest.first_id = first_id
    kafka = FakeKafka()
    order = ask(kafka, from_id=100)
    assert isinstance(order, Order)
    assert (order.request.from_id, order.asked_for) == (begins_at, 100)
    ((_topic, how),) = kafka.producers[0].produced
    assert decode_request(how["value"]).from_id == begins_at
    assert first_rest.kinds == [StreamKind.AGG_TRADE]


def test_a_tape_that_begins_where_the_exchange_does_has_no_past(
    first_rest: type[FirstRest],
) -> None:
    first_rest.first_id = 500
    found = ask(FakeKafka(), from_id=100)
    assert isinstance(found, Progress)
    assert (found.stage, found.first_id, found.from_id) == (Stage.NOTHING_TO_DO, 500, 100)


def test_an_exchange_that_does_not_answer_or_is_another_leaves_it_to_the_writer(
    room: Any, first_rest: type[FirstRest]
) -> None:
    first_rest.first_id = None
    order = ask(FakeKafka(), from_id=100)
    assert isinstance(order, Order)
    assert order.request.from_id == 100
    first_rest.first_id = 200
    room.said = ShardRecord(identity(environment="testnet"), record().position)
    order = ask(FakeKafka(), from_id=100)
    assert isinstance(order, Order)
    assert order.request.from_id == 100


@pytest.mark.usefixtures("room")
def test_a_symbol_without_a_tape_is_refused_with_those_that_have_one() -> None:
    with pytest.raises(RejectError, match=r"no tape of ETHUSDT.*it has BTCUSDT"):
        ask(FakeKafka(), symbol="ETHUSDT")


def test_a_symbol_that_is_not_recorded_now_is_refused_before_anything_is_asked_for(
    room: Any,
) -> None:
    left = msgspec.structs.replace(identity(), symbols=["ETHUSDT"])
    room.said = ShardRecord(left, record().position)
    kafka = FakeKafka()
    with pytest.raises(RejectError, match=r"BTCUSDT is not recorded now.*k2 symbols add BTCUSDT"):
        ask(kafka)
    assert kafka.producers == []


def test_a_symbol_the_exchange_does_not_list_is_refused(
    first_rest: type[FirstRest], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unlisted(*_who: Any, **_from: Any) -> Any:
        raise UnknownSymbolError("-1121")

    monkeypatch.setattr(first_rest, "rows_from", unlisted)
    kafka = FakeKafka()
    with pytest.raises(RejectError, match=r"lists BTCUSDT no more"):
        ask(kafka)
    assert kafka.producers == []


@pytest.mark.usefixtures("room")
def test_an_answer_that_is_lost_is_said_to_be() -> None:
    with pytest.raises(ReconcileError, match="k2 positions show"):
        ask(FakeKafka(KafkaError._MSG_TIMED_OUT))


ORDER = Order(BackfillRequest(X, 100, "r1"), shard=0, offset=41, began_at=500, asked_for=100)
PENDING = (ORDER.request,)


@pytest.mark.parametrize(
    ("said", "stage", "done"),
    [
        (record(requests=PENDING), Stage.REQUESTED, 0),
        (record(backfills={X: 100}), Stage.RUNNING, 0),
        (record(300, backfills={X: 100}), Stage.RUNNING, 200),
        (record(100), Stage.DONE, 400),
        (record(50), Stage.DONE, 400),
        (record(300), Stage.DONE, 200),  # the exchange has nothing before
        (record(), Stage.REFUSED, 0),
    ],
)
def test_what_has_become_of_a_wish(said: ShardRecord, stage: Stage, done: int) -> None:
    now = ORDER.progress(said)
    assert (now.stage, now.ids_done, now.ids_wanted) == (stage, done, 400)


class FakeFollower:
    """Follows a script of (next offset, record)."""

    script: list[tuple[int, ShardRecord]]
    closed = False

    def __init__(self, *_where: Any, **_how: Any) -> None:
        self.next_offset, self.record = 0, ShardRecord(None, None)

    def follow(self) -> bool:
        if not self.script:
            return False
        self.next_offset, self.record = self.script.pop(0)
        return True

    def close(self) -> None:
        type(self).closed = True


@pytest.mark.usefixtures("room")
def test_a_wish_is_watched_from_its_own_record_until_it_is_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(backfill_order, "ShardFollower", FakeFollower)
    FakeFollower.script = [
        (41, record(100)),  # not our own record yet: says nothing of it
        (42, record(requests=PENDING)),
        (43, record()),  # taken up, but the position that says so is a record further on
        (44, record(backfills={X: 100})),
        (50, record(300, backfills={X: 100})),
        (60, record(100)),
    ]
    stages = [now.stage for now in watch(Settings(), ORDER)]
    assert stages == [Stage.REQUESTED, Stage.RUNNING, Stage.DONE]
    assert FakeFollower.closed


@pytest.mark.usefixtures("room")
def test_a_wish_that_was_not_taken_up_is_over_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backfill_order, "ShardFollower", FakeFollower)
    FakeFollower.script = [(43, record())]
    assert [now.stage for now in watch(Settings(), ORDER)] == [Stage.REFUSED]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("2026-11-01", datetime(2026, 11, 1, tzinfo=UTC)),
        ("2026-11-01T06:30:00.000001", datetime(2026, 11, 1, 6, 30, 0, 1, tzinfo=UTC)),
        ("2026-11-01T06:30+02:00", datetime(2026, 11, 1, 4, 30, tzinfo=UTC)),
    ],
)
def test_a_moment_without_a_zone_is_utc(text: str, found: datetime) -> None:
    assert moment(text) == found


def identity(**other: str) -> Identity:
    says = {"venue": "BINANCE", "environment": "production", "stream_kind": "aggTrade", **other}
    return Identity(**says, topic_ids={}, partitions=1, symbols=[X])


@pytest.mark.parametrize(
    ("other", "why"),
    [
        ({"stream_kind": "trade"}, r"historicalTrades has no startTime.*--from-id"),
        ({"environment": "testnet"}, r"ids are those of testnet.*BINANCE_WS_URL"),
    ],
)
def test_a_date_the_exchange_cannot_turn_into_an_id_of_this_tape_is_refused(
    room: Any, other: dict[str, str], why: str
) -> None:
    room.said = ShardRecord(identity(**other), None)
    with pytest.raises(RejectError, match=why):
        id_since(Settings(), X, moment("2026-11-01"))


def test_a_date_becomes_the_first_id_since(room: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, int]] = []
    answers: list[int | None] = [77, None]

    class Rest:
        def __init__(self, *_where: Any, **_how: Any) -> None: ...

        async def __aenter__(self) -> Self:
            return self

        async def __aexit__(self, *_exc: object) -> None: ...

        async def id_at(self, symbol: str, ts_us: int) -> int | None:
            asked.append((symbol, ts_us))
            return answers.pop(0)

    monkeypatch.setattr(venue, "RestClient", Rest)
    room.said = ShardRecord(identity(), None)
    assert id_since(Settings(), X, moment("2026-01-01T00:00:00.000001")) == 77
    assert asked == [(X, 1_767_225_600_000_001)]
    with pytest.raises(RejectError, match="no trade since"):
        id_since(Settings(), X, moment("2026-01-01"))
