"""``k2 doctor`` against the real thing: each line has its real cause, on a real Kafka."""

import json
import os
import signal
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourceType,
)

from integration.harness import Room, wait_for
from k2.doctor.checks import NEEDS
from k2.doctor.finding import Level, Unseen
from k2.doctor.kafka_judgement import (
    Needs,
    TransactionDone,
    TransactionRefused,
    judge_broker,
    judge_transaction,
)
from k2.doctor.kafka_look import KafkaLook
from k2.doctor.transaction_look import TRANSACTIONAL_ID, open_transactions, try_transaction
from k2.kafka.encoding import SCHEMA_TEXT
from k2.kafka.registry import Registry
from k2.kafka.topics import TopicNames, create_topics
from k2.local import broker
from k2.local.background import BackgroundStack
from k2.local.stack import Stack
from k2.simulator.proxy import FaultProxy

pytestmark = pytest.mark.integration

NO_EXCHANGE = "http://127.0.0.1:9"
"""The discard port: settings want an address, though nobody asks there."""

Findings = dict[str, list[dict[str, Any]]]


def _doctor(room: Room, *words: str) -> tuple[int, Findings]:
    """Run the command; return its exit code and the findings by what was looked at."""
    room.exchange_url = room.exchange_url or NO_EXCHANGE
    done = room.k2("doctor", *words, "--json", check=False)
    assert "Traceback" not in done.stderr
    found: Findings = {}
    for one in json.loads(done.stdout)["findings"]:
        found.setdefault(one["check"], []).append(one)
    return done.returncode, found


def _of(found: Findings, check: str, name: str) -> dict[str, Any]:
    """Return the finding of a concern that names a topic."""
    (one,) = [one for one in found[check] if name in one["seen"].split(": ")[-1].split(", ")]
    return one


@pytest.fixture
def admin(room: Room) -> AdminClient:
    return AdminClient({"bootstrap.servers": room.stack.address.bootstrap})


@pytest.fixture
def topics(room: Room, admin: AdminClient) -> TopicNames:
    names = TopicNames.of(room.prefix)
    create_topics(admin, names, shards=1)
    return names


def _set(admin: AdminClient, topic: str, **settings: str | None) -> None:
    """Set (or, with None, give back) settings of a topic."""
    entries = [
        ConfigEntry(
            name.replace("_", "."),
            value or "",
            incremental_operation=AlterConfigOpType.SET if value else AlterConfigOpType.DELETE,
        )
        for name, value in settings.items()
    ]
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=entries)
    for future in admin.incremental_alter_configs([resource]).values():
        future.result(10)


def test_a_room_where_all_runs_has_nothing_to_fix_but_its_single_broker(room: Room) -> None:
    room.exchange("--rate", "200")
    room.stream()
    room.archive()
    room.wait_until_archiving()
    code, found = _doctor(room)
    not_ok = [one for lines in found.values() for one in lines if one["level"] != "ok"]
    # The disks of the machine under test are its own business.
    told = {one["check"] for one in not_ok if not one["check"].startswith("disk")}
    assert told == {"replication"}, not_ok
    assert code == 0 or any(one["level"] == "fail" for one in not_ok)
    assert "the only broker" in found["replication"][0]["seen"]
    assert found["topics"][0]["seen"] == "5 of 1 partition"
    assert "same as this k2's" in found[f"{room.topic}-value schema"][0]["seen"]
    assert found["newest snapshot"][0]["level"] == "ok"


def test_topics_of_bad_settings_fail_each_by_its_name(
    room: Room, admin: AdminClient, topics: TopicNames
) -> None:
    _set(admin, topics.trades, retention_ms=str(24 * 3_600_000))
    _set(admin, topics.positions, cleanup_policy="delete")
    _set(admin, topics.gaps, unclean_leader_election_enable="true")
    _set(admin, topics.repairs, min_insync_replicas="2")
    code, found = _doctor(room, "kafka")
    assert code == 1
    trades = _of(found, "retention", topics.trades)
    assert (trades["level"], "retention.ms=259200000" in trades["fix"]) == ("fail", True)
    positions = _of(found, "retention", topics.positions)
    assert (positions["level"], "cleanup.policy=compact" in positions["fix"]) == ("fail", True)
    assert _of(found, "unclean election", topics.gaps)["level"] == "fail"
    repairs = _of(found, "replication", topics.repairs)
    assert repairs["level"] == "warn"
    assert "before 3.7" in repairs["seen"]
    assert _of(found, "replication", topics.trades)["level"] == "warn"
    assert _of(found, "retention", topics.gaps)["level"] == "ok"

    _, found = _doctor(room, "kafka", "--outage-h", "12")
    assert _of(found, "retention", topics.trades)["level"] == "ok"


def test_an_odd_partition_count_and_a_missing_topic_fail(room: Room, admin: AdminClient) -> None:
    names = TopicNames.of(room.prefix)
    for topic, partitions in ((names.trades, 1), (names.positions, 2), (names.gaps, 1)):
        admin.create_topics([NewTopic(topic, partitions)])[topic].result(10)
    code, found = _doctor(room, "kafka")
    assert code == 1
    assert f"missing: {names.repairs}, {names.lease}" in found["topics"][0]["seen"]
    for topic in (names.repairs, names.lease):
        admin.create_topics([NewTopic(topic, 1)])[topic].result(10)
    _, found = _doctor(room, "kafka")
    assert found["topics"][0]["level"] == "fail"
    assert f"{names.positions} 2" in found["topics"][0]["seen"]


@contextmanager
def _left_open(room: Room, topic: str, *, began_s_ago: float) -> Iterator[None]:
    """Keep a transaction open, its first record of some time ago."""
    producer = Producer(
        {"bootstrap.servers": room.stack.address.bootstrap, "transactional.id": f"t-{topic}"}
    )
    producer.init_transactions(20)
    producer.begin_transaction()
    began_ms = int((time.time() - began_s_ago) * 1000)
    producer.produce(topic, b"x", timestamp=began_ms)
    assert producer.flush(20) == 0
    yield
    producer.abort_transaction(20)


@pytest.mark.parametrize(("began_s_ago", "level"), [(30.0, "warn"), (180.0, "fail")])
def test_a_transaction_nobody_ends_is_found_with_its_age(
    room: Room, topics: TopicNames, began_s_ago: float, level: str
) -> None:
    with _left_open(room, topics.gaps, began_s_ago=began_s_ago):
        code, found = _doctor(room, "kafka")
    (one,) = found[f"{topics.gaps}[0] stable offset"]
    assert one["level"] == level, one
    assert "stands at 0" in one["seen"]
    assert code == (1 if level == "fail" else 0)
    assert "stable offsets" not in found
    _, found = _doctor(room, "kafka")
    assert found["stable offsets"][0]["level"] == "ok"


def test_a_busy_shard_is_not_taken_for_a_stuck_one(room: Room, topics: TopicNames) -> None:
    room.exchange("--rate", "2000")
    room.stream()
    wait_for(room.topic_records, what="trades in the topic")
    client = {"bootstrap.servers": room.stack.address.bootstrap}
    for _ in range(5):
        assert open_transactions(client, {topics.trades: 1, topics.positions: 1}) == []


def test_a_transaction_that_is_not_answered_is_refused_in_time(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("k2.doctor.transaction_look.TRY_TIMEOUT_S", 2.0)
    client = {"bootstrap.servers": room.stack.address.bootstrap, "log_level": 0}
    assert isinstance(try_transaction(client, transaction_s=60), TransactionDone)
    os.kill(room.stack.pids["kafka"], signal.SIGSTOP)
    try:
        refused = try_transaction(client, transaction_s=60)
    finally:
        os.kill(room.stack.pids["kafka"], signal.SIGCONT)
    assert isinstance(refused, TransactionRefused)
    assert refused.code == "_TIMED_OUT"
    assert judge_transaction(refused, needs=NEEDS).level is Level.FAIL


def test_a_broker_with_kafkas_defaults_and_a_low_maximum_is_told_so(
    room: Room, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = broker.server_properties
    other = "group.min.session.timeout.ms=6000\ntransaction.max.timeout.ms=30000\n"
    monkeypatch.setattr(broker, "server_properties", lambda config: ours(config) + other)
    with BackgroundStack(
        Stack(state_dir=tmp_path / "stack", kafka_port=None, registry_port=None)
    ) as stack:
        room.extra = {"KAFKA_BOOTSTRAP": stack.address.bootstrap}
        code, found = _doctor(room, "kafka")
    assert code == 1
    session = found["broker 1 group.min.session.timeout.ms"][0]
    assert (session["level"], session["fix"]) == (
        "warn",
        "group.min.session.timeout.ms=1000 on every broker",
    )
    assert found["broker 1 transaction.max.timeout.ms"][0]["level"] == "fail"
    assert found["transactions"][0]["level"] == "fail"
    assert "transaction.max.timeout.ms=60000" in found["transactions"][0]["fix"]


def test_a_timeout_the_broker_does_not_allow_is_refused_by_name(room: Room) -> None:
    client = {"bootstrap.servers": room.stack.address.bootstrap, "log_level": 0}
    refused = try_transaction(client, transaction_s=901)  # the broker's maximum is 900
    assert isinstance(refused, TransactionRefused)
    assert refused.code == "INVALID_TRANSACTION_TIMEOUT"


def test_the_doctors_own_transaction_fences_no_writer_and_writes_no_record(room: Room) -> None:
    room.exchange("--rate", "200")
    stream = room.stream()
    wait_for(lambda: stream.events("took_over"), what="a writer")
    wait_for(room.topic_records, what="trades in the topic")
    for _ in range(2):
        assert _doctor(room, "kafka")[0] == 0
    assert stream.running
    assert not [line for line in stream.log().splitlines() if "fenced" in line.lower()]
    admin = AdminClient({"bootstrap.servers": room.stack.address.bootstrap})
    groups = admin.list_consumer_groups().result(10).valid
    assert TRANSACTIONAL_ID not in {group.group_id for group in groups}


def test_a_real_brokers_settings_are_judged_against_what_is_needed(room: Room) -> None:
    look = KafkaLook({"bootstrap.servers": room.stack.address.bootstrap})
    look.cluster()
    (settings,) = look.broker_settings().values()
    assert not isinstance(settings, Unseen)
    assert {one.level for one in judge_broker(1, settings, needs=NEEDS)} == {Level.OK}
    # The same broker, were the lease's session 0.5 s and its transactions longer than 15 minutes.
    harder = Needs(session_s=0.5, session_at_most_s=6, transaction_s=1000)
    levels = [one.level for one in judge_broker(1, settings, needs=harder)]
    assert levels == [Level.OK, Level.WARN, Level.FAIL]


def test_a_kafka_that_answers_nothing_fails_within_its_time_and_the_registry_is_still_seen(
    room: Room,
) -> None:
    bootstrap = room.stack.address.bootstrap
    host, _, port = bootstrap.rpartition(":")

    async def proxied() -> FaultProxy:
        proxy = await FaultProxy(host, int(port)).__aenter__()
        proxy.stall()
        return proxy

    proxy = room.stack.call(proxied())
    try:
        began_s = time.monotonic()
        room.extra = {"KAFKA_BOOTSTRAP": f"127.0.0.1:{proxy.port}"}
        code, found = _doctor(room, "kafka", "registry")
        assert time.monotonic() - began_s < 45
    finally:
        room.stack.call(proxy.__aexit__(None, None, None))
    assert code == 1
    assert found["metadata"][0]["level"] == "fail"
    assert found[f"127.0.0.1:{proxy.port} TCP"][0]["level"] == "ok"
    assert found[f"{room.topic}-value schema"][0]["level"] == "warn"


def test_one_bootstrap_address_of_two_that_is_down_is_a_warning(room: Room) -> None:
    room.extra = {"KAFKA_BOOTSTRAP": f"127.0.0.1:1,{room.stack.address.bootstrap}"}
    code, found = _doctor(room, "kafka")
    assert code == 0
    assert found["127.0.0.1:1 TCP"][0]["level"] == "warn"
    assert found["metadata"][0]["level"] == "ok"


def test_a_subject_with_another_programs_schema_fails(room: Room) -> None:
    registry = Registry(room.stack.address.registry_url)
    subject = f"{room.topic}-value"
    registry.register(subject, '{"type": "record", "name": "Other", "fields": []}')
    code, found = _doctor(room, "registry")
    assert code == 1
    assert found[f"{subject} schema"][0]["level"] == "fail"
    assert found[f"{room.topic}.repairs-value schema"][0]["level"] == "warn"


def test_a_registry_that_takes_any_schema_is_a_warning(room: Room) -> None:
    subject = f"{room.topic}-value"
    Registry(room.stack.address.registry_url).register(subject, SCHEMA_TEXT)
    found = _doctor(room, "registry")[1]
    assert found[f"{subject} compatibility"][0]["level"] == "ok"
    assert "the same as this k2's" in found[f"{subject} schema"][0]["seen"]
    _set_registry_level(room, "NONE")
    try:
        code, found = _doctor(room, "registry")
    finally:
        _set_registry_level(room, "BACKWARD")
    assert code == 0
    assert found[f"{subject} compatibility"][0]["level"] == "warn"


def _set_registry_level(room: Room, level: str) -> None:
    request = urllib.request.Request(
        f"{room.stack.address.registry_url}/config",
        data=json.dumps({"compatibility": level}).encode(),
        headers={"Content-Type": "application/vnd.schemaregistry.v1+json"},
        method="PUT",
    )
    urllib.request.urlopen(request, timeout=10).close()


def test_a_broker_that_is_named_wrongly_is_found_by_its_port(room: Room) -> None:
    room.extra = {"KAFKA_BOOTSTRAP": room.stack.address.registry_url.rpartition("/")[2]}
    code, found = _doctor(room, "kafka")  # a port that speaks HTTP
    assert code == 1
    assert found["metadata"][0]["level"] == "fail"
    assert "is it a Kafka listener" in found["metadata"][0]["fix"]
