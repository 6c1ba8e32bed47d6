import time
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from k2.kafka import letter_topic
from k2.kafka.clients import Clients
from k2.kafka.connection import KafkaConnection
from k2.kafka.letter_topic import LetterTopic
from k2.local.ports import pick_free


class FakeProducer:
    """Keeps what is produced until a test says what became of it."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings
        self.waiting: list[Any] = []
        self.produced: list[tuple[str, Any, Any]] = []
        self.refusal: Exception | None = None
        self.answer: int | None = None
        self.silent = False

    def produce(self, topic: str, *, value: bytes, key: bytes | None, on_delivery: Any) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.produced.append((topic, key, value))
        self.waiting.append(on_delivery)

    def poll(self, timeout_s: float) -> None:
        assert timeout_s == 0, "letters are waited for by nobody"
        if self.silent:
            return
        problem = None if self.answer is None else KafkaError(self.answer)
        for told in self.waiting:
            told(problem, SimpleNamespace())
        self.waiting.clear()

    def flush(self, _timeout_s: float) -> None: ...

    def __len__(self) -> int:
        return len(self.waiting)


class Kafka:
    def __init__(self) -> None:
        self.made: list[FakeProducer] = []
        self.topic = LetterTopic(
            KafkaConnection("kafka:9092"), topic="t.dlq", clients=Clients(self._make, self._make)
        )

    def _make(self, settings: dict[str, Any]) -> FakeProducer:
        self.made.append(FakeProducer(settings))
        return self.made[-1]


def test_the_producer_comes_with_the_first_letter_and_writes_by_symbol() -> None:
    kafka = Kafka()
    kafka.topic.look()
    kafka.topic.close(1)
    assert kafka.made == []
    kafka.topic.send(b"1", symbol="BTCUSDT")
    kafka.topic.send(b"2", symbol=None)
    (producer,) = kafka.made
    assert producer.produced == [("t.dlq", b"BTCUSDT", b"1"), ("t.dlq", None, b"2")]
    assert producer.settings["partitioner"] == "murmur2_random"
    assert "transactional.id" not in producer.settings
    assert (kafka.topic.sent, kafka.topic.waiting) == (0, 2)
    kafka.topic.look()
    assert (kafka.topic.sent, kafka.topic.not_sent, kafka.topic.waiting) == (2, 0, 0)


@pytest.mark.parametrize(
    ("refusal", "why"),
    [
        (BufferError("full"), "too many letters wait"),
        (KafkaException(KafkaError(KafkaError.MSG_SIZE_TOO_LARGE)), "too large"),
    ],
)
def test_what_the_library_refuses_is_counted(refusal: Exception, why: str) -> None:
    kafka = Kafka()
    kafka.topic.send(b"1", symbol=None)
    kafka.made[0].refusal = refusal
    kafka.topic.send(b"2", symbol=None)
    assert kafka.topic.not_sent == 1
    assert why in kafka.topic.problem.lower()


def test_what_kafka_refuses_is_counted() -> None:
    kafka = Kafka()
    kafka.topic.send(b"1", symbol=None)
    kafka.made[0].answer = KafkaError.TOPIC_AUTHORIZATION_FAILED
    kafka.topic.look()
    assert (kafka.topic.sent, kafka.topic.not_sent) == (0, 1)


def test_a_producer_that_can_send_no_more_is_replaced_and_what_it_held_was_not_sent() -> None:
    kafka = Kafka()
    kafka.topic.send(b"1", symbol=None)
    kafka.topic.look()
    kafka.topic.send(b"2", symbol=None)
    kafka.made[0].refusal = KafkaException(KafkaError(KafkaError._FATAL))
    kafka.made[0].silent = True
    kafka.topic.send(b"3", symbol=None)
    kafka.topic.send(b"4", symbol=None)
    assert [value for _, _, value in kafka.made[1].produced] == [b"3", b"4"]
    kafka.topic.look()
    assert (kafka.topic.sent, kafka.topic.not_sent, kafka.topic.waiting) == (3, 1, 0)
    assert len(kafka.made) == 2


def test_a_letter_is_tried_with_one_new_producer_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeProducer, "produce", _fatal)
    kafka = Kafka()
    for _ in range(3):
        kafka.topic.send(b"1", symbol=None)
    assert (kafka.topic.not_sent, len(kafka.made)) == (3, 4)


def _fatal(*_what: Any, **_how: Any) -> None:
    raise KafkaException(KafkaError(KafkaError._FATAL))


def test_what_waits_at_the_end_was_not_sent() -> None:
    kafka = Kafka()
    for _ in range(3):
        kafka.topic.send(b"1", symbol=None)
    kafka.topic.close(1)
    assert kafka.topic.not_sent == 3


def test_a_kafka_that_is_away_takes_nobodys_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(letter_topic, "WAITING_MAX_LETTERS", 100)
    monkeypatch.setattr(letter_topic, "DELIVERY_TIMEOUT_S", 1.0)
    (port,) = pick_free(1)
    topic = LetterTopic(
        KafkaConnection(f"127.0.0.1:{port}"), topic="t.dlq"
    )  # the real library, and nobody there
    began_s = time.monotonic()
    for _ in range(300):
        topic.send(b"{}", symbol="BTCUSDT")
    topic.look()
    assert time.monotonic() - began_s < 5
    assert topic.waiting == 100
    assert topic.not_sent == 200
    deadline_s = time.monotonic() + 30
    while topic.waiting:
        assert time.monotonic() < deadline_s
        time.sleep(0.05)
        topic.look()
    assert (topic.sent, topic.not_sent) == (0, 300)
    topic.close(1)
