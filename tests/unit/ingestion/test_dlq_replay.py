from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from confluent_kafka import KafkaError

from k2.errors import ReconcileError
from k2.ingestion import dlq_replay
from k2.ingestion.dlq_judging import Outcome
from k2.ingestion.dlq_replay import judge_letters, replay, requests_for
from k2.kafka.clients import Clients
from k2.kafka.connection import KafkaConnection
from k2.kafka.gap_records import GapEvent, GapRecord
from k2.kafka.position import Identity, OpenGap, ShardPosition, ShardRecord, SymbolPosition
from k2.kafka.replay_request import TRADES_MAX, ReplayRequest, decode_replay
from k2.market import GapClass, IdRange
from k2.settings import Settings
from unit.ingestion.test_dlq_judging import EVENT, letter
from unit.trades import trade

X = "BTCUSDT"
IDENTITY = Identity("BINANCE", "production", "aggTrade", {}, 1, [X])
POSITION = ShardPosition({X: SymbolPosition(200, 199, 100)})


class FakeRoom:
    """A tape in Kafka, whose writer answers as told."""

    def __init__(self) -> None:
        self.kafka, self.partitions = KafkaConnection("kafka:9092"), 1
        self.names = SimpleNamespace(trades="t.binance", positions="t.positions", gaps="t.gaps")
        self.said = ShardRecord(IDENTITY, POSITION)
        self.gaps = [self.gap(GapEvent.DECLARED)]
        self.answer = "repaired"
        self.hidden_looks = 0
        """How often what was written is hidden behind an open transaction."""
        self.problem: int | None = None
        self.asked: list[ReplayRequest] = []

    def record(self, _shard: int) -> ShardRecord:
        return self.said

    def loses_its_gap_records(self) -> None:
        """Be rebuilt from the lake: the position looks for ids of which no record is left."""
        self.gaps.clear()
        position = msgspec.structs.replace(POSITION, open_gaps=(OpenGap(X, IdRange(149, 151), 1),))
        self.said = msgspec.structs.replace(self.said, position=position)

    @staticmethod
    def gap(event: GapEvent) -> GapRecord:
        return GapRecord(event, X, IdRange(150, 150), GapClass.REJECTED, "", 1, None)

    @property
    def clients(self) -> Clients:
        def make(_settings: dict[str, Any]) -> Any:
            return SimpleNamespace(produce=self._produce, flush=lambda _s: self._flush())

        return Clients(make, make)

    def _produce(self, topic: str, *, value: bytes, on_delivery: Any, **where: Any) -> None:
        assert (topic, where["partition"]) == ("t.positions", 0)
        self.asked.append(decode_replay(value))
        self.told = on_delivery

    def _flush(self) -> None:
        problem = None if self.problem is None else KafkaError(self.problem)
        self.told(problem, SimpleNamespace(offset=lambda: 7))
        if self.answer == "repaired":
            self.gaps.append(self.gap(GapEvent.REPAIRED))
        elif self.answer == "nothing yet":
            self.said = msgspec.structs.replace(self.said, replays=tuple(self.asked))

    def last_stable_offset(self, topic: str, shard: int) -> int:
        assert (topic, shard) == ("t.positions", 0)
        if self.hidden_looks:
            self.hidden_looks -= 1
            return 7
        return 8

    def close(self) -> None: ...


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> FakeRoom:
    made = FakeRoom()
    monkeypatch.setattr(dlq_replay, "find_room", lambda _settings: made)
    reader = SimpleNamespace(gap_records=lambda _topic: list(made.gaps))
    monkeypatch.setattr(dlq_replay, "TapeReader", lambda *_a, **_k: reader)
    monkeypatch.setattr(dlq_replay, "EndAsker", lambda *_a, **_k: made)
    monkeypatch.setattr(dlq_replay, "LOOK_EVERY_S", 0.01)
    return made


LETTERS = [letter(EVENT), letter(EVENT | {"p": "7"}), letter(EVENT | {"a": 120})]


def outcomes(room: FakeRoom) -> list[Outcome]:
    found = replay(Settings(), iter(LETTERS), answered_within_s=0.1, clients=room.clients)
    return [one.outcome for one in found]


def test_a_dry_run_judges_and_asks_for_nothing(room: FakeRoom) -> None:
    found = [one.outcome for one in judge_letters(Settings(), iter(LETTERS))]
    assert found == [Outcome.REPAIRABLE, Outcome.REPAIRABLE, Outcome.RECORDED]
    assert room.asked == []


def test_what_two_legs_brought_is_asked_for_once_in_the_first_ones_words(room: FakeRoom) -> None:
    assert outcomes(room) == [Outcome.REPAIRED, Outcome.REPAIRED, Outcome.RECORDED]
    ((one,),) = (request.trades for request in room.asked)
    assert (one.source_id, str(one.price)) == (150, "93712.01")
    assert outcomes(room) == [Outcome.RECORDED] * 3
    assert len(room.asked) == 1


def test_what_no_writer_has_answered_is_asked_for_and_not_asked_for_again(room: FakeRoom) -> None:
    room.answer = "nothing yet"
    assert outcomes(room)[0] is Outcome.ASKED
    assert outcomes(room)[0] is Outcome.ASKED
    assert len(room.asked) == 1


def test_a_wish_behind_an_open_transaction_is_not_taken_for_answered(room: FakeRoom) -> None:
    room.answer, room.hidden_looks = "declined", 10_000
    assert outcomes(room)[0] is Outcome.ASKED
    room.hidden_looks = 3
    assert outcomes(room)[0] is Outcome.DECLINED
    assert room.hidden_looks == 0


def test_what_the_writer_left_declared_is_declined(room: FakeRoom) -> None:
    room.answer = "declined"
    assert outcomes(room)[0] is Outcome.DECLINED


def test_what_the_position_looks_for_is_missing_where_no_record_declares_it(
    room: FakeRoom,
) -> None:
    room.loses_its_gap_records()
    found = [one.outcome for one in judge_letters(Settings(), iter(LETTERS))]
    assert found == [Outcome.REPAIRABLE, Outcome.REPAIRABLE, Outcome.RECORDED]
    assert outcomes(room) == [Outcome.REPAIRED, Outcome.REPAIRED, Outcome.RECORDED]
    assert len(room.asked) == 1
    assert outcomes(room) == [Outcome.RECORDED] * 3, "repaired after the position was read"
    assert len(room.asked) == 1


@pytest.mark.parametrize(
    ("answer", "outcome"), [("declined", Outcome.DECLINED), ("nothing yet", Outcome.ASKED)]
)
def test_what_only_the_position_knew_is_repaired_when_a_record_says_so(
    room: FakeRoom, answer: str, outcome: Outcome
) -> None:
    room.loses_its_gap_records()
    room.answer = answer
    assert outcomes(room)[0] is outcome


def test_nothing_is_asked_for_of_a_symbol_that_is_not_recorded_now(room: FakeRoom) -> None:
    left = msgspec.structs.replace(IDENTITY, symbols=[])
    room.said = msgspec.structs.replace(room.said, identity=left)
    assert outcomes(room)[0] is Outcome.REPAIRABLE
    assert room.asked == []


def test_a_wish_of_which_nobody_knows_is_said_to_be(room: FakeRoom) -> None:
    room.problem = KafkaError._MSG_TIMED_OUT
    with pytest.raises(ReconcileError, match="asking again does no harm"):
        outcomes(room)


def test_wishes_are_of_one_symbol_ascending_and_none_too_long() -> None:
    many = [trade(i) for i in range(2 * TRADES_MAX, 0, -1)] + [trade(5, "ETHUSDT")]
    found = requests_for(many)
    assert [(one.symbol, len(one.trades)) for one in found] == [
        (X, TRADES_MAX),
        (X, TRADES_MAX),
        ("ETHUSDT", 1),
    ]
    ids = [one.source_id for request in found[:2] for one in request.trades]
    assert ids == list(range(1, 2 * TRADES_MAX + 1))
    assert len({one.request_id for one in found}) == 3
