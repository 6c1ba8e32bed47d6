from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any, cast

import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from k2.errors import RetryError
from k2.kafka.topics import TopicFacts, TopicNames, create_topics, describe_topics

NAMES = TopicNames.of("market.crypto.trades")


class FakeAdmin:
    """An admin client that knows some topics and answers creation as told."""

    def __init__(self, *present: str, refusal: int | None = None) -> None:
        self.present = set(present)
        self.created: list[Any] = []
        self.refusal = refusal

    def list_topics(self, timeout: float) -> Any:
        assert timeout
        if self.refusal == KafkaError._TRANSPORT:
            raise KafkaException(KafkaError(KafkaError._TRANSPORT))
        return SimpleNamespace(topics=dict.fromkeys(self.present))

    def create_topics(self, new: list[Any], **_more: Any) -> dict[str, Future[None]]:
        self.created += new
        return {topic.topic: self._done(None) for topic in new}

    def describe_topics(self, wanted: Any, **_more: Any) -> dict[str, Future[Any]]:
        names = [name for name in NAMES_LIST if name in self.present]
        assert wanted is not None
        return {
            name: self._done(SimpleNamespace(topic_id="id-" + name, partitions=[0, 1]))
            for name in names
        }

    def _done(self, value: Any) -> Future[Any]:
        future: Future[Any] = Future()
        if self.refusal is None:
            future.set_result(value)
        else:
            future.set_exception(KafkaException(KafkaError(self.refusal)))
        return future


NAMES_LIST = [NAMES.trades, NAMES.positions, NAMES.gaps]


def _admin(fake: FakeAdmin) -> AdminClient:
    return cast("AdminClient", fake)


def test_the_names_follow_from_the_prefix() -> None:
    assert NAMES.trades == "market.crypto.trades.binance"
    assert NAMES.positions == "market.crypto.trades.binance.positions"
    assert NAMES.gaps == "market.crypto.trades.binance.gaps"
    assert NAMES.subject == "market.crypto.trades.binance-value"


def test_all_topics_are_created_with_the_same_partition_count() -> None:
    fake = FakeAdmin()
    assert create_topics(_admin(fake), NAMES, shards=3) == NAMES_LIST
    assert {topic.num_partitions for topic in fake.created} == {3}
    positions = next(topic for topic in fake.created if topic.topic == NAMES.positions)
    assert positions.config["cleanup.policy"] == "compact"
    gaps = next(topic for topic in fake.created if topic.topic == NAMES.gaps)
    assert gaps.config["retention.ms"] == "-1"


def test_only_what_is_absent_is_created() -> None:
    fake = FakeAdmin(NAMES.trades, NAMES.gaps)
    assert create_topics(_admin(fake), NAMES, shards=3) == [NAMES.positions]
    assert create_topics(_admin(FakeAdmin(*NAMES_LIST)), NAMES, shards=3) == []


def test_a_topic_another_process_created_meanwhile_is_fine() -> None:
    fake = FakeAdmin(refusal=KafkaError.TOPIC_ALREADY_EXISTS)
    assert create_topics(_admin(fake), NAMES, shards=1) == NAMES_LIST


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
