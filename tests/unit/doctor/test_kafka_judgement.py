import pytest

from k2.doctor.finding import Level, Unseen
from k2.doctor.kafka_judgement import (
    FENCED,
    Cluster,
    Needs,
    OpenTransaction,
    TransactionDone,
    TransactionRefused,
    judge_broker,
    judge_cluster,
    judge_listener,
    judge_open,
    judge_transaction,
)

NEEDS = Needs(session_s=2.5, session_at_most_s=6.0, transaction_s=60.0)
GOOD = {"group.min.session.timeout.ms": "1000", "transaction.max.timeout.ms": "900000"}


def _level_of(word: str, **settings: str | None) -> Level:
    told = GOOD | {name.replace("_", "."): value for name, value in settings.items() if value}
    told = {name: value for name, value in told.items() if settings.get(name, value) is not None}
    found = judge_broker(7, told, needs=NEEDS)
    (one,) = [one for one in found if word in one.check]
    assert one.check.startswith("broker 7")
    assert bool(one.fix) is (one.level is not Level.OK)
    return one.level


@pytest.mark.parametrize(
    ("floor_ms", "level"),
    [
        ("1000", Level.OK),
        ("2500", Level.OK),
        ("2501", Level.WARN),
        ("6000", Level.WARN),
        ("6001", Level.FAIL),
    ],
)
def test_a_session_floor_above_the_leases_session_is_told(floor_ms: str, level: Level) -> None:
    assert _level_of("session", group_min_session_timeout_ms=floor_ms) is level


def test_the_session_floor_is_told_with_what_it_costs() -> None:
    (one,) = [
        one
        for one in judge_broker(1, GOOD | {"group.min.session.timeout.ms": "6000"}, needs=NEEDS)
        if one.level is not Level.OK
    ]
    assert one.seen == "6000: a dead writer is noticed after 6 s, not 2.5 s"
    assert one.fix == "group.min.session.timeout.ms=1000 on every broker"


def test_a_broker_that_refuses_our_transactions_timeout_fails() -> None:
    assert _level_of("transaction", transaction_max_timeout_ms="60000") is Level.OK
    assert _level_of("transaction", transaction_max_timeout_ms="59999") is Level.FAIL


@pytest.mark.parametrize(
    ("protocol", "level"),
    [(None, Level.OK), ("3.9-IV0", Level.OK), ("2.8-IV1", Level.OK), ("2.7-IV2", Level.WARN)],
)
def test_the_version_is_told_as_far_as_the_settings_do(protocol: str | None, level: Level) -> None:
    assert _level_of("version", inter_broker_protocol_version=protocol) is level


def test_a_version_that_is_not_told_is_not_guessed() -> None:
    (found,) = [one for one in judge_broker(1, GOOD, needs=NEEDS) if "version" in one.check]
    assert found.seen.startswith("unknown")


def test_settings_that_are_kept_from_us_are_a_warning() -> None:
    (found,) = judge_broker(1, Unseen("not authorized"), needs=NEEDS)
    assert found.level is Level.WARN
    assert "DescribeConfigs" in found.fix
    assert {one.level for one in judge_broker(1, {}, needs=NEEDS)} == {Level.OK, Level.WARN}


def test_an_unreachable_cluster_names_the_setting() -> None:
    found = judge_cluster(Unseen("timed out"), bootstrap="kafka:9092")
    assert found.level is Level.FAIL
    assert found.seen == "kafka:9092: timed out"
    assert "KAFKA_BOOTSTRAP" in found.fix


def test_a_cluster_is_told_with_its_brokers() -> None:
    assert "1 broker," in judge_cluster(Cluster("x", 1, 0.1), bootstrap="k:1").seen
    assert "3 brokers," in judge_cluster(Cluster("x", 3, 0.1), bootstrap="k:1").seen


def test_a_broker_that_advertises_what_cannot_be_reached_fails() -> None:
    found = judge_listener(2, "kafka:29092", Unseen("Name or service not known"))
    assert found.level is Level.FAIL
    assert "advertised.listeners" in found.fix
    assert judge_listener(2, "kafka:29092", 0.01).level is Level.OK


@pytest.mark.parametrize(
    ("code", "word"),
    [
        ("_TIMED_OUT", "__transaction_state"),
        ("COORDINATOR_NOT_AVAILABLE", "replication.factor"),
        ("TRANSACTIONAL_ID_AUTHORIZATION_FAILED", "Write"),
        ("INVALID_TRANSACTION_TIMEOUT", "transaction.max.timeout.ms=60000"),
    ],
)
def test_each_reason_a_transaction_fails_has_its_remedy(code: str, word: str) -> None:
    found = judge_transaction(TransactionRefused(code, "said"), needs=NEEDS)
    assert found.level is Level.FAIL
    assert "said" in found.seen
    assert word in found.fix


def test_being_fenced_by_another_doctor_means_that_transactions_work() -> None:
    assert judge_transaction(TransactionRefused(FENCED, "x"), needs=NEEDS).level is Level.OK
    assert judge_transaction(TransactionDone(0.02), needs=NEEDS).level is Level.OK


@pytest.mark.parametrize(
    ("open_for_s", "level"),
    [
        (0.2, Level.OK),
        (10.0, Level.OK),
        (11.0, Level.WARN),
        (80.0, Level.WARN),
        (81.0, Level.FAIL),
        (None, Level.WARN),
    ],
)
def test_an_open_transaction_is_stuck_once_the_broker_should_have_ended_it(
    open_for_s: float | None, level: Level
) -> None:
    seen = OpenTransaction("t", 3, 100, 250, open_for_s)
    found = judge_open(seen, needs=NEEDS)
    assert found.check == "t[3] stable offset"
    assert found.level is level
    assert "stands at 100, the end is 250" in found.seen
