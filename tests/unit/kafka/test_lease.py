from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any, cast

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from k2.errors import RetryError
from k2.kafka import admin, lease
from k2.kafka.clients import Clients
from k2.kafka.connection import KafkaConnection
from k2.kafka.lease import Lease, LeaseChange, group_id, other_members
from k2.kafka.topics import TopicNames

NAMES = TopicNames.of("p")
POLL_EXCEEDED = KafkaError(KafkaError._MAX_POLL_EXCEEDED)


class FakeConsumer:
    """Does one step of the script per poll: a change is told, an error returned, None waits."""

    made: list["FakeConsumer"]
    steps: deque[tuple[str, list[int]] | KafkaError]
    now_s: float

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings
        self.closed = False
        self.topics: list[str] = []
        self.told: dict[str, Callable[[Any, list[TopicPartition]], None]] = {}
        type(self).made.append(self)

    def subscribe(self, topics: list[str], **told: Any) -> None:
        self.topics = topics
        self.told = told

    def poll(self, timeout_s: float) -> Any:
        if not self.steps:
            type(self).now_s += timeout_s
            return None
        step = self.steps.popleft()
        if isinstance(step, KafkaError):
            return SimpleNamespace(error=lambda: step)
        how, shards = step
        self.told[how](self, [TopicPartition(NAMES.lease, shard) for shard in shards])
        return None

    def close(self) -> None:
        self.closed = True
        self.told["on_revoke"](self, [TopicPartition(NAMES.lease, 0)])


@pytest.fixture(autouse=True)
def group() -> type[FakeConsumer]:
    FakeConsumer.made, FakeConsumer.steps, FakeConsumer.now_s = [], deque(), 0.0
    return FakeConsumer


def make_lease(**more: Any) -> Lease:
    return Lease(
        KafkaConnection("kafka:9092"),
        names=NAMES,
        client_id="a",
        clients=Clients(FakeConsumer, FakeConsumer),
        monotonic_s=lambda: FakeConsumer.now_s,
        **more,
    )


def test_the_group_is_the_same_in_every_instance_and_nobody_joins_before_the_first_poll(
    group: type[FakeConsumer],
) -> None:
    lease = make_lease()
    assert group.made == []
    assert lease.poll(0) == LeaseChange()
    (consumer,) = group.made
    assert consumer.topics == ["p.binance.lease"]
    assert consumer.settings["group.id"] == group_id("p.binance") == "k2-capture-p.binance"
    assert consumer.settings["client.id"] == "a"
    assert consumer.settings["partition.assignment.strategy"] == "cooperative-sticky"


def test_a_change_is_told_at_once(group: type[FakeConsumer]) -> None:
    lease = make_lease()
    group.steps.append(("on_assign", [0, 2]))
    assert lease.poll(1.0) == LeaseChange(gained=frozenset({0, 2}))
    assert lease.held == {0, 2}
    assert group.now_s == 0.0


def test_no_change_takes_its_time(group: type[FakeConsumer]) -> None:
    lease = make_lease()
    group.steps.append(("on_assign", []))
    assert lease.poll(1.0) == LeaseChange()
    assert group.now_s == pytest.approx(1.0)


def test_what_is_lost_and_what_is_given_up_are_told_apart(group: type[FakeConsumer]) -> None:
    lease = make_lease()
    group.steps += [("on_assign", [0, 1, 2]), ("on_revoke", [1]), ("on_lost", [0])]
    changes = [lease.poll(1.0) for _ in range(3)]
    assert changes[1:] == [
        LeaseChange(given_up=frozenset({1})),
        LeaseChange(lost=frozenset({0})),
    ]
    assert lease.held == {2}


def test_changes_told_together_keep_their_order(group: type[FakeConsumer]) -> None:
    lease = make_lease()
    lease.poll(0)
    (consumer,) = group.made
    for how, shard in (("on_assign", 0), ("on_lost", 0), ("on_assign", 1)):
        consumer.told[how](consumer, [TopicPartition(NAMES.lease, shard)])
    held = []
    for _ in range(3):
        lease.poll(1.0)
        held.append(set(lease.held))
    assert held == [{0}, set(), {1}]


def test_who_leaves_holds_nothing_and_joins_again_with_the_next_poll(
    group: type[FakeConsumer],
) -> None:
    lease = make_lease()
    group.steps.append(("on_assign", [0]))
    lease.poll(1.0)
    lease.leave()
    lease.leave()
    assert lease.held == frozenset()
    assert group.made[0].closed
    assert lease.poll(0) == LeaseChange()
    assert len(group.made) == 2


def test_a_late_poll_goes_on_and_hears_of_its_loss(group: type[FakeConsumer]) -> None:
    lease = make_lease()
    group.steps += [("on_assign", [0]), POLL_EXCEEDED, ("on_lost", [0])]
    lease.poll(1.0)
    assert lease.poll(1.0) == LeaseChange(lost=frozenset({0}))


def test_a_broker_that_refuses_short_sessions_gets_its_default(group: type[FakeConsumer]) -> None:
    lease = make_lease()
    refused = KafkaError(KafkaError.INVALID_SESSION_TIMEOUT)
    group.steps += [refused, ("on_assign", [0])]
    assert lease.poll(1.0).gained == {0}
    first, second = group.made
    assert first.closed
    assert (first.settings["session.timeout.ms"], first.settings["max.poll.interval.ms"]) == (
        2500, 3000
    )  # fmt: skip
    assert (second.settings["session.timeout.ms"], second.settings["max.poll.interval.ms"]) == (
        6000, 6000
    )  # fmt: skip
    assert lease.session_timeout_s == 6.0
    group.steps.append(refused)
    with pytest.raises(RetryError):
        lease.poll(1.0)


def test_what_was_held_when_the_broker_came_to_refuse_is_lost(group: type[FakeConsumer]) -> None:
    lease = make_lease()
    group.steps += [("on_assign", [0]), KafkaError(KafkaError.INVALID_SESSION_TIMEOUT)]
    lease.poll(1.0)
    assert lease.poll(1.0) == LeaseChange(lost=frozenset({0}))


def test_trouble_that_passes_is_waited_out_and_other_trouble_is_told(
    group: type[FakeConsumer],
) -> None:
    lease = make_lease()
    group.steps += [KafkaError(KafkaError._TRANSPORT, retriable=True), ("on_assign", [0])]
    assert lease.poll(1.0).gained == {0}
    group.steps.append(KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED))
    with pytest.raises(RetryError, match="lease group cannot be joined"):
        lease.poll(1.0)
    assert lease.held == {0}


def _admin(answer: Any) -> AdminClient:
    future: Future[Any] = Future()
    if isinstance(answer, KafkaError):
        future.set_exception(KafkaException(answer))
    else:
        members = [SimpleNamespace(client_id=name) for name in answer]
        future.set_result(SimpleNamespace(members=members))
    fake = SimpleNamespace(describe_consumer_groups=lambda groups, **_: {groups[0]: future})
    return cast("AdminClient", fake)


def test_the_other_members_are_counted() -> None:
    assert other_members(_admin(["a", "b", "c"]), "g", client_id="a") == 2
    assert other_members(_admin([]), "g", client_id="a") == 0
    nobody = KafkaError(KafkaError.GROUP_ID_NOT_FOUND)
    assert other_members(_admin(nobody), "g", client_id="a") == 0
    with pytest.raises(RetryError):
        other_members(_admin(KafkaError(KafkaError._TRANSPORT)), "g", client_id="a")


def test_a_kafka_that_does_not_answer_is_told_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "ADMIN_TIMEOUT_S", 0.05)
    nowhere = AdminClient({"bootstrap.servers": "127.0.0.1:1", "log_level": 0})
    for _ in range(5):
        with pytest.raises(RetryError, match="Timed out"):
            other_members(nowhere, "g", client_id="a")


def test_a_library_that_says_nothing_is_not_waited_for_any_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lease, "ADMIN_TIMEOUT_S", 0.0)
    monkeypatch.setattr(admin, "ANSWER_SLACK_S", 0.01)
    silent = SimpleNamespace(describe_consumer_groups=lambda groups, **_: {groups[0]: Future()})
    with pytest.raises(RetryError):
        other_members(cast("AdminClient", silent), "g", client_id="a")
