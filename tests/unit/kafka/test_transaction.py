from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from k2.errors import ReconcileError, RetryError
from k2.kafka.clients import Clients
from k2.kafka.connection import KafkaConnection
from k2.kafka.transaction import FencedError, Record, ShardProducer, transactional_id

RECORDS = [Record("t", b"X", b"1"), Record("t.positions", b"position", b"2")]
TIMED_OUT = KafkaError(KafkaError._TIMED_OUT, "slow", retriable=True)
ABORTABLE = KafkaError(KafkaError._MSG_TIMED_OUT, "lost", txn_requires_abort=True)
FATAL = KafkaError(KafkaError.INVALID_TXN_STATE, "broken", fatal=True)
FENCED = KafkaError(KafkaError._FENCED, "fenced", fatal=True)
FENCED_BY_BROKER = KafkaError(KafkaError.PRODUCER_FENCED, "fenced", fatal=True)


class FakeProducer:
    """Does what the script says per method: an error is raised, None is success."""

    script: dict[str, list[KafkaError | BufferError | None]]
    made: list["FakeProducer"]

    def __init__(self, settings: dict[str, Any], **_more: Any) -> None:
        self.settings = settings
        self.calls: list[str] = []
        self.produced: list[tuple[str, bytes, bytes | None, int]] = []
        type(self).made.append(self)

    def _do(self, name: str) -> None:
        self.calls.append(name)
        steps = self.script.get(name, [])
        step = steps.pop(0) if steps else None
        if isinstance(step, KafkaError):
            raise KafkaException(step)
        if step is not None:
            raise step

    def list_topics(self, timeout: float) -> None:
        assert timeout
        self._do("list_topics")

    def init_transactions(self, _timeout: float) -> None:
        self._do("init")

    def begin_transaction(self) -> None:
        self._do("begin")

    def produce(self, topic: str, *, value: bytes | None, key: bytes, partition: int) -> None:
        self._do("produce")
        self.produced.append((topic, key, value, partition))

    def poll(self, _timeout: float) -> None:
        self._do("poll")

    def commit_transaction(self, _timeout: float) -> None:
        self._do("commit")

    def abort_transaction(self, _timeout: float) -> None:
        self._do("abort")


CLIENTS = Clients(FakeProducer, FakeProducer)
Start = Callable[..., ShardProducer]


@pytest.fixture
def start() -> Start:
    """Return an initialised shard producer over a producer that follows a script."""
    FakeProducer.made = []

    def begin(
        *,
        keep_trying: Callable[[], bool] = lambda: True,
        monotonic_s: Callable[[], float] = lambda: 0.0,
        **script: Any,
    ) -> ShardProducer:
        FakeProducer.script = {}
        shard = ShardProducer(
            kafka=KafkaConnection("kafka:9092"),
            trades_topic="t",
            shard=3,
            keep_trying=keep_trying,
            clients=CLIENTS,
            monotonic_s=monotonic_s,
        )
        shard.initialise()
        FakeProducer.script = script
        return shard

    return begin


def test_records_and_position_go_in_one_transaction_to_the_shards_partition(start: Start) -> None:
    shard = start()
    shard.commit(RECORDS)
    (producer,) = FakeProducer.made
    assert producer.calls == [
        "list_topics", "init", "begin", "produce", "produce", "commit"
    ]  # fmt: skip
    assert producer.produced == [("t", b"X", b"1", 3), ("t.positions", b"position", b"2", 3)]
    assert shard.initialised


def test_the_transactional_id_is_the_same_in_every_instance(start: Start) -> None:
    start()
    (producer,) = FakeProducer.made
    assert producer.settings["transactional.id"] == transactional_id("t", 3) == "k2-t-3"
    assert producer.settings["enable.idempotence"] is True


def test_a_retriable_commit_is_called_again_and_the_producer_not_used_afterwards(
    start: Start,
) -> None:
    shard = start(commit=[TIMED_OUT, TIMED_OUT, None])
    shard.commit(RECORDS)
    (producer,) = FakeProducer.made
    assert producer.calls.count("commit") == 3
    assert "abort" not in producer.calls
    assert not shard.initialised
    with pytest.raises(ReconcileError, match="not initialised"):
        shard.commit(RECORDS)
    shard.initialise()
    shard.commit(RECORDS)
    assert len(FakeProducer.made) == 2


@pytest.mark.parametrize("at", ["begin", "produce", "commit"])
def test_an_abortable_failure_is_aborted_and_nothing_happened(start: Start, at: str) -> None:
    shard = start(**{at: [ABORTABLE]})
    with pytest.raises(RetryError, match="lost"):
        shard.commit(RECORDS)
    assert FakeProducer.made[0].calls[-1] == "abort"
    assert not shard.initialised, "Kafka may have lost more than this: the position is read first"
    shard.initialise()
    shard.commit(RECORDS)


def test_an_abortable_failure_after_a_retriable_one_is_aborted_too(start: Start) -> None:
    shard = start(commit=[TIMED_OUT, ABORTABLE])
    with pytest.raises(RetryError):
        shard.commit(RECORDS)
    assert FakeProducer.made[0].calls[-1] == "abort"


def test_a_slow_abort_is_called_again(start: Start) -> None:
    shard = start(commit=[ABORTABLE], abort=[TIMED_OUT, TIMED_OUT, None])
    with pytest.raises(RetryError):
        shard.commit(RECORDS)
    assert FakeProducer.made[0].calls.count("abort") == 3


def test_an_abort_that_fails_leaves_the_outcome_unknown(start: Start) -> None:
    shard = start(commit=[ABORTABLE], abort=[FATAL])
    with pytest.raises(ReconcileError, match="abort outcome unknown"):
        shard.commit(RECORDS)
    assert not shard.initialised


def test_a_slow_abort_ends_when_told_to_stop_trying(start: Start) -> None:
    shard = start(keep_trying=lambda: False, commit=[ABORTABLE], abort=[TIMED_OUT])
    with pytest.raises(ReconcileError):
        shard.commit(RECORDS)
    assert not shard.initialised


@pytest.mark.parametrize("at", ["begin", "produce", "commit"])
def test_a_fatal_failure_leaves_the_outcome_unknown(start: Start, at: str) -> None:
    shard = start(**{at: [FATAL]})
    with pytest.raises(ReconcileError, match="outcome unknown"):
        shard.commit(RECORDS)
    assert not shard.initialised
    assert "abort" not in FakeProducer.made[0].calls


@pytest.mark.parametrize("reason", [FENCED, FENCED_BY_BROKER])
@pytest.mark.parametrize("at", ["begin", "produce", "commit"])
def test_a_fenced_producer_says_who_it_was(start: Start, at: str, reason: KafkaError) -> None:
    shard = start(**{at: [reason]})
    with pytest.raises(
        FencedError, match=r"another process became the writer of shard 3 \(k2-t-3\)"
    ):
        shard.commit(RECORDS)
    assert not shard.initialised


def test_a_producer_fenced_while_it_aborts_says_so(start: Start) -> None:
    shard = start(commit=[ABORTABLE], abort=[FENCED])
    with pytest.raises(FencedError):
        shard.commit(RECORDS)
    assert not shard.initialised


def test_a_fatal_error_in_a_long_batch_is_asked_what_it_stands_for(start: Start) -> None:
    # Fenced while producing, the library says only that something was fatal.
    anonymous = KafkaError(KafkaError._FATAL, "fatal", fatal=True)
    shard = start(produce=[None, anonymous], abort=[FENCED])
    with pytest.raises(FencedError, match="another process became the writer"):
        shard.commit(RECORDS)
    assert not shard.initialised


def test_a_fence_after_a_transaction_that_was_open_too_long_may_be_kafkas_own(
    start: Start,
) -> None:
    clock = iter([0.0, 0.0, 0.0])
    shard = start(commit=[FENCED], monotonic_s=lambda: next(clock, 61.0))
    with pytest.raises(ReconcileError, match="61 s in one transaction") as raised:
        shard.commit(RECORDS)
    assert not isinstance(raised.value, FencedError)
    assert not shard.initialised


def test_a_commit_that_waits_ends_when_told_to_stop_trying(start: Start) -> None:
    answers = [True, True, False]
    shard = start(keep_trying=lambda: answers.pop(0), commit=[TIMED_OUT] * 9)
    with pytest.raises(ReconcileError, match="stopped while a commit waited"):
        shard.commit(RECORDS)
    assert FakeProducer.made[0].calls.count("commit") == 3
    assert not shard.initialised


def test_a_full_queue_is_waited_for(start: Start) -> None:
    shard = start(produce=[BufferError("full"), BufferError("full"), None])
    shard.commit(RECORDS)
    (producer,) = FakeProducer.made
    assert producer.calls.count("poll") == 2
    assert [value for _, _, value, _ in producer.produced] == [b"1", b"2"]


def test_a_queue_that_stays_full_ends_when_told_to_stop_trying(start: Start) -> None:
    shard = start(keep_trying=lambda: False, produce=[BufferError("full")] * 9)
    with pytest.raises(ReconcileError, match="stopped while"):
        shard.commit(RECORDS)
    assert not shard.initialised


def test_a_broker_that_is_away_at_the_start_is_tried_again_later(start: Start) -> None:
    shard = start()
    FakeProducer.script = {"list_topics": [TIMED_OUT, None]}
    with pytest.raises(RetryError):
        shard.initialise()
    assert not shard.initialised
    shard.initialise()
    assert shard.initialised


def test_an_initialisation_that_takes_long_is_asked_for_again_until_time_is_up(
    start: Start,
) -> None:
    shard = start()
    FakeProducer.script = {"init": [TIMED_OUT, TIMED_OUT, None]}
    shard.initialise()
    assert shard.initialised
    assert FakeProducer.made[-1].calls.count("init") == 3
    # Told to stop trying, or refused for good, it gives up.
    for problem, keep_trying in ((TIMED_OUT, False), (FATAL, True)):
        shard = start(keep_trying=lambda keep_trying=keep_trying: keep_trying)
        FakeProducer.script = {"init": [problem, None]}
        with pytest.raises(RetryError):
            shard.initialise()
        assert not shard.initialised


def test_a_producer_fenced_while_it_initialises_is_none(start: Start) -> None:
    shard = start()
    FakeProducer.script = {"init": [FENCED]}
    with pytest.raises(FencedError):
        shard.initialise()
    assert not shard.initialised


def test_fenced_in_a_long_pause_while_it_initialises_is_fenced_all_the_same(
    start: Start,
) -> None:
    clock = iter(range(0, 10_000, 70))
    shard = start(monotonic_s=lambda: float(next(clock)))
    FakeProducer.script = {"init": [FENCED]}
    with pytest.raises(FencedError):
        shard.initialise()


def test_a_warm_producer_is_connected_fences_nobody_and_is_the_next_one(start: Start) -> None:
    shard = start()
    shard.warm()
    shard.warm()
    _, warm = FakeProducer.made
    assert set(warm.calls) == {"list_topics"}
    shard.commit(RECORDS)
    assert "begin" not in warm.calls
    shard.initialise()
    shard.commit(RECORDS)
    assert len(FakeProducer.made) == 2
    assert warm.calls[-4:] == ["begin", "produce", "produce", "commit"]
    assert warm.calls.count("init") == 1


def test_a_warm_producer_outlives_the_one_in_use_but_not_the_shard(start: Start) -> None:
    shard = start(commit=[FATAL])
    shard.warm()
    with pytest.raises(ReconcileError):
        shard.commit(RECORDS)
    shard.initialise()
    assert len(FakeProducer.made) == 2
    shard.warm()
    shard.destroy()
    shard.initialise()
    assert len(FakeProducer.made) == 4


def test_warming_up_without_a_broker_is_tried_again_later(start: Start) -> None:
    shard = start()
    FakeProducer.script = {"list_topics": [TIMED_OUT, None]}
    with pytest.raises(RetryError):
        shard.warm()
    shard.warm()
    assert len(FakeProducer.made) == 2


def test_a_record_without_value_deletes(start: Start) -> None:
    shard = start()
    shard.commit([Record("t.positions", b"request:1", None)])
    assert FakeProducer.made[0].produced == [("t.positions", b"request:1", None, 3)]


def test_initialising_again_makes_a_new_producer(start: Start) -> None:
    shard = start()
    shard.initialise()
    assert len(FakeProducer.made) == 2
