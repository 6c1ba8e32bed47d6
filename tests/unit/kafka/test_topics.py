from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any, cast

import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from k2.errors import RetryError, StopError
from k2.kafka.topics import (
    TopicFacts,
    TopicNames,
    create_topics,
    describe_topics,
    topic_facts,
)

NAMES = TopicNames.of("market.crypto.trades")


class FakeAdmin:
    """An admin client that knows some topics and answers creation as told."""

    def __init__(
        self, *present: str, refusal: int | None = None, partitions: int = 2, odd: str = ""
    ) -> None:
        self.present = set(present)
        self.partitions = partitions
        self.odd = odd
        self.created: list[Any] = []
        self.refusal = refusal

    def list_topics(self, timeout: float) -> Any:
        assert timeout
        if self.refusal == KafkaError._TRANSPORT:
            raise KafkaException(KafkaError(KafkaError._TRANSPORT))
        return SimpleNamespace(topics={name: self._topic(name) for name in self.present})

    def create_topics(self, new: list[Any], **_more: Any) -> dict[str, Future[None]]:
        self.created += new
        return {topic.topic: self._done(None) for topic in new}

    def describe_topics(self, wanted: Any, **_more: Any) -> dict[str, Future[Any]]:
        names = [name for name in wanted.topic_names if name in self.present]
        return {name: self._done(self._topic(name)) for name in names}

    def _topic(self, name: str) -> Any:
        partitions = list(range(self.partitions + (name == self.odd)))
        return SimpleNamespace(topic_id="id-" + name, partitions=partitions)

    def _done(self, value: Any) -> Future[Any]:
        future: Future[Any] = Future()
        if self.refusal is None:
            future.set_result(value)
        else:
            future.set_exception(KafkaException(KafkaError(self.refusal)))
        return future


NAMES_LIST = [NAMES.trades, NAMES.positions, NAMES.gaps, NAMES.repairs, NAMES.lease]


def _admin(fake: FakeAdmin) -> AdminClient:
    return cast("AdminClient", fake)


def test_the_names_follow_from_the_prefix() -> None:
    assert NAMES.trades == "market.crypto.trades.binance"
    assert NAMES.positions == "market.crypto.trades.binance.positions"
    assert NAMES.gaps == "market.crypto.trades.binance.gaps"
    assert NAMES.repairs == "market.crypto.trades.binance.repairs"
    assert NAMES.lease == "market.crypto.trades.binance.lease"
    assert NAMES.dlq == "market.crypto.trades.binance.dlq"
    assert NAMES.repairs_subject == "market.crypto.trades.binance.repairs-value"
    assert list(NAMES.all()) == [*NAMES_LIST, NAMES.dlq]
    assert NAMES.subject == "market.crypto.trades.binance-value"


def test_all_topics_are_created_with_the_same_partition_count() -> None:
    fake = FakeAdmin()
    assert create_topics(_admin(fake), NAMES, shards=3) == [*NAMES_LIST, NAMES.dlq]
    assert {topic.num_partitions for topic in fake.created} == {3}
    positions = next(topic for topic in fake.created if topic.topic == NAMES.positions)
    assert positions.config["cleanup.policy"] == "compact"
    for name in (NAMES.gaps, NAMES.repairs):
        kept = next(topic for topic in fake.created if topic.topic == name)
        assert kept.config["retention.ms"] == "-1"
    letters = next(topic for topic in fake.created if topic.topic == NAMES.dlq)
    assert int(letters.config["retention.ms"]) > 0
    assert int(letters.config["retention.bytes"]) > 0


def test_nobody_waits_for_the_topic_of_dead_letters() -> None:
    assert set(topic_facts(_admin(FakeAdmin(*NAMES_LIST)), NAMES)) == set(NAMES_LIST)
    odd = FakeAdmin(*NAMES_LIST, NAMES.dlq, odd=NAMES.dlq)
    assert set(topic_facts(_admin(odd), NAMES)) == set(NAMES_LIST)


def test_only_what_is_absent_is_created() -> None:
    fake = FakeAdmin(NAMES.trades, NAMES.gaps, NAMES.lease)
    assert create_topics(_admin(fake), NAMES, shards=3) == [
        NAMES.positions,
        NAMES.repairs,
        NAMES.dlq,
    ]
    assert create_topics(_admin(FakeAdmin(*NAMES.all())), NAMES, shards=3) == []


def test_beside_a_trades_topic_the_others_get_its_partition_count() -> None:
    fake = FakeAdmin(NAMES.trades, partitions=5)
    create_topics(_admin(fake), NAMES, shards=3)
    assert {topic.num_partitions for topic in fake.created} == {5}


def test_a_shard_needs_its_partition_in_every_topic() -> None:
    assert set(topic_facts(_admin(FakeAdmin(*NAMES_LIST)), NAMES)) == set(NAMES_LIST)
    for name in NAMES_LIST:
        with pytest.raises(RetryError, match=f"{name} does not exist: `k2 stream` creates it"):
            topic_facts(_admin(FakeAdmin(*set(NAMES_LIST) - {name})), NAMES)
        with pytest.raises(StopError, match="different partition counts"):
            topic_facts(_admin(FakeAdmin(*NAMES_LIST, odd=name)), NAMES)


def test_a_topic_another_process_created_meanwhile_is_fine() -> None:
    fake = FakeAdmin(refusal=KafkaError.TOPIC_ALREADY_EXISTS)
    assert create_topics(_admin(fake), NAMES, shards=1) == list(NAMES.all())


def test_a_broker_that_refuses_or_is_away_is_asked_again() -> None:
    for refusal in (KafkaError.POLICY_VIOLATION, KafkaError._TRANSPORT):
        with pytest.raises(RetryError):
            create_topics(_admin(FakeAdmin(refusal=refusal)), NAMES, shards=1)
    with pytest.raises(RetryError):
        describe_topics(
            _admin(FakeAdmin(NAMES.trades, refusal=KafkaError.UNKNOWN_TOPIC_OR_PART)), NAMES_LIST
        )


def test_topics_that_exist_are_described_the_others_left_out() -> None:
    fake = FakeAdmin(NAMES.trades)
    assert describe_topics(_admin(fake), NAMES_LIST) == {
        NAMES.trades: TopicFacts("id-" + NAMES.trades, 2)
    }
    assert describe_topics(_admin(FakeAdmin()), NAMES_LIST) == {}
