"""Kafka behind TLS and a login, on a real broker; and no secret is ever told."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from uuid import uuid4

import pytest
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import NewTopic, ResourceType  # type: ignore[attr-defined]

from integration.harness import Process, wait_for
from k2.kafka.admin import KafkaAdmin
from k2.kafka.connection import KafkaConnection
from k2.kafka.topics import TopicNames
from k2.local.background import BackgroundStack
from k2.local.ports import pick_free
from k2.local.preparing import prepare
from k2.settings.connections import kafka_connection
from k2.settings.security import SecuritySettings, variable
from system.kafka_rights import PAGE, allow, documented_rights
from system.secure_broker import NEWCOMER, USER, SecureBroker, secure_broker
from system.secure_registry import secure_registry
from system.secure_room import (
    CANARIES,
    PASSWORD,
    WRONG,
    SecureRoom,
    check_that_both_services_record_and_tell_no_secret,
    page,
)
from system.token_issuer import token_issuer

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureBroker]:
    prepared = asyncio.run(prepare(report=lambda _: None))
    folder = tmp_path_factory.mktemp("secure")
    with secure_broker(
        folder,
        prepared,
        password=PASSWORD,
        key_password=CANARIES["kafka_ssl_key_password"],
    ) as running:
        yield running


@pytest.fixture
def room(stack: BackgroundStack, broker: SecureBroker, tmp_path: Path) -> Iterator[SecureRoom]:
    login = f"k2:{CANARIES['registry_password']}"
    server = broker.certificates.server_pem
    behind = stack.address.registry_url
    with secure_registry(behind, login=login, certificate=server) as registry_url:
        # The tests' own eyes use the listener that asks for nothing.
        seen = SimpleNamespace(address=replace(stack.address, bootstrap=broker.plain))
        one = SecureRoom(cast("BackgroundStack", seen), tmp_path, f"s{uuid4().hex[:8]}")
        allow(broker.plain, f"User:{USER}", documented_rights(one.prefix))
        ca = str(broker.certificates.ca)
        one.extra = {
            "KAFKA_BOOTSTRAP": broker.sasl,
            "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
            "KAFKA_SASL_MECHANISM": "SCRAM-SHA-512",
            "KAFKA_SASL_USERNAME": USER,
            "KAFKA_SASL_PASSWORD": PASSWORD,
            "KAFKA_SSL_CA_LOCATION": ca,
            "SCHEMA_REGISTRY_URL": registry_url,
            "SCHEMA_REGISTRY_USERNAME": "k2",
            "SCHEMA_REGISTRY_PASSWORD": CANARIES["registry_password"],
            "SCHEMA_REGISTRY_CA_LOCATION": ca,
        }
        yield one
        for process in one.processes:
            if process.running:
                process.kill()


def test_the_promise_holds_behind_tls_and_a_login_and_no_secret_is_told(room: SecureRoom) -> None:
    file = room.path / "password.secret"
    file.write_text(f"{PASSWORD}\n")
    del room.extra["KAFKA_SASL_PASSWORD"]
    room.extra["KAFKA_SASL_PASSWORD_FILE"] = str(file)
    check_that_both_services_record_and_tell_no_secret(room)


def test_it_holds_with_a_token_and_the_secret_it_is_asked_for_with_is_not_told(
    room: SecureRoom,
) -> None:
    secret = CANARIES["kafka_client_secret"]
    room.forget_the_login()
    with token_issuer(login=f"k2:{secret}") as endpoint:
        room.extra |= {
            "KAFKA_SASL_MECHANISM": "OAUTHBEARER",
            "KAFKA_SASL_OAUTHBEARER_TOKEN_ENDPOINT_URL": endpoint,
            "KAFKA_SASL_OAUTHBEARER_CLIENT_ID": "k2",
            "KAFKA_SASL_OAUTHBEARER_CLIENT_SECRET": secret,
        }
        check_that_both_services_record_and_tell_no_secret(room)


def test_it_holds_with_a_certificate_and_the_password_of_its_key_is_not_told(
    room: SecureRoom, broker: SecureBroker
) -> None:
    room.forget_the_login()
    room.extra |= {
        "KAFKA_BOOTSTRAP": broker.mutual,
        "KAFKA_SECURITY_PROTOCOL": "SSL",
        "KAFKA_SSL_CERTIFICATE_LOCATION": str(broker.certificates.client_certificate),
        "KAFKA_SSL_KEY_LOCATION": str(broker.certificates.client_key),
        "KAFKA_SSL_KEY_PASSWORD": CANARIES["kafka_ssl_key_password"],
    }
    check_that_both_services_record_and_tell_no_secret(room)


def test_what_k2_is_not_allowed_is_said_until_it_is(room: SecureRoom, broker: SecureBroker) -> None:
    room.extra["KAFKA_SASL_USERNAME"] = NEWCOMER
    health, archive_health = pick_free(2)
    room.extra |= {"K2_HEALTH_PORT": str(health), "K2_ARCHIVE_HEALTH_PORT": str(archive_health)}
    rights = documented_rights(room.prefix)

    def allow_more(kind: ResourceType, *, reading: bool = True) -> None:
        wanted = [
            right
            for right in rights
            if right.kind is kind and (reading or right.operation != "Read")
        ]
        allow(broker.plain, f"User:{NEWCOMER}", wanted)

    room.exchange("--rate", "100")
    stream, archive = room.stream(), room.archive()
    wait_until_said(stream, "dependency_not_available", "Kafka did not create topic", PAGE.name)

    allow_more(ResourceType.TOPIC, reading=False)
    wait_until_said(archive, "topic_not_readable", "Topic authorization failed", PAGE.name)
    wait_for(lambda: "topic_unread" in page(archive_health, "/health"), what="the archive to tell")
    allow_more(ResourceType.TOPIC)  # .gaps and .repairs have no record whose coming would show it
    wait_for(lambda: "topic_unread" not in page(archive_health, "/health"), what="it to be over")

    denied = "Group authorization failed", PAGE.name
    wait_until_said(stream, "lease_not_polled", *denied)
    wait_until_said(stream, "positions_not_readable", *denied)
    wait_until_said(archive, "kafka_complains", *denied)
    wait_for(lambda: "positions_unread" in page(health, "/health"), what="the capture to tell")

    allow_more(ResourceType.GROUP)
    wait_until_said(
        stream, "dependency_not_available", "Transactional Id authorization failed", PAGE.name
    )

    allow_more(ResourceType.TRANSACTIONAL_ID)
    room.wait_until_archiving()
    wait_for(lambda: "positions_unread" not in page(health, "/health"), what="it to be over")
    doctor = "doctor", "kafka"
    advice = "allow this principal DescribeConfigs on the cluster"
    assert advice in room.k2(*doctor).stdout
    allow_more(ResourceType.BROKER)
    assert advice not in room.k2(*doctor).stdout
    newest = room.stop_trading()
    room.wait_until_archived(newest)
    assert (stream.end(), archive.end()) == (0, 0)
    room.check_promise(newest)


def wait_until_said(service: Process, event: str, *words: str) -> None:
    """Wait for a line of this event whose reason has all the words."""
    wait_for(
        lambda: any(
            all(word in said["reason"] for word in words) for said in service.events(event)
        ),
        what=f"{event} to say {words}",
    )


def test_a_wrong_password_is_said_again_and_again_and_no_secret_is_told(room: SecureRoom) -> None:
    room.extra["KAFKA_SASL_PASSWORD"] = WRONG
    (health,) = pick_free(1)
    room.extra["K2_HEALTH_PORT"] = str(health)
    room.exchange()
    waiting = room.stream()
    wait_for(
        lambda: len(waiting.events("dependency_not_available")) >= 2 or None,
        what="the capture to say twice what it waits for",
    )
    for event in waiting.events("dependency_not_available"):
        assert event["what"] == f"Kafka at {room.extra['KAFKA_BOOTSTRAP']}"
        assert "Kafka refuses the login" in event["reason"]
        assert "KAFKA_SASL_PASSWORD" in event["reason"]
    told_so = wait_for(
        lambda: text if "refuses the login" in (text := page(health, "/health")) else None,
        what="/health to say why Kafka is not there",
    )
    assert waiting.end() == 0
    for service in (room.stream("--fail-fast"), room.archive("--fail-fast")):
        assert service.wait(60) == 4
        assert "Kafka refuses the login" in service.log()
    said = {words: room.k2(*words.split(), check=False) for words in ("tail", "doctor kafka")}
    assert said["tail"].returncode == 1
    assert "Kafka refuses the login" in said["tail"].stderr
    assert said["tail"].stderr.count("\n") == 1
    assert said["doctor kafka"].returncode == 1
    told = {words: done.stdout + done.stderr for words, done in said.items()}
    assert "Traceback" not in str(told) + str(room.told())
    room.check_no_secret_is_told(health=told_so, **told)


def test_a_certificate_of_another_authority_is_not_believed(
    room: SecureRoom, broker: SecureBroker
) -> None:
    room.extra["KAFKA_SSL_CA_LOCATION"] = str(broker.certificates.other_ca)
    room.exchange()
    stream = room.stream("--fail-fast")
    assert stream.wait(60) == 4
    assert "no TLS with Kafka, see KAFKA_SECURITY_PROTOCOL, KAFKA_SSL_CA_LOCATION" in stream.log()
    room.check_no_secret_is_told()


def test_a_registry_that_refuses_the_login_is_said(room: SecureRoom) -> None:
    room.extra["SCHEMA_REGISTRY_PASSWORD"] = WRONG
    room.exchange()
    stream = room.stream("--fail-fast")
    assert stream.wait(60) == 4
    assert "refuses the login (401: who are you?)" in stream.log()
    assert "SCHEMA_REGISTRY_PASSWORD" in stream.log()
    room.check_no_secret_is_told()


def test_a_key_that_does_not_open_ends_the_service_in_one_line(
    room: SecureRoom, broker: SecureBroker
) -> None:
    room.extra |= {
        "KAFKA_SSL_CERTIFICATE_LOCATION": str(broker.certificates.client_certificate),
        "KAFKA_SSL_KEY_LOCATION": str(broker.certificates.client_key),
        "KAFKA_SSL_KEY_PASSWORD": WRONG,
    }
    room.exchange()
    stream = room.stream()
    assert stream.wait(60) == 1
    assert "ssl.key.location failed" in stream.log()
    assert "Traceback" not in stream.log()
    done = room.k2("doctor", "kafka", check=False)
    assert (done.returncode, "KAFKA_SSL_KEY_PASSWORD" in done.stdout) == (1, True)
    room.check_no_secret_is_told(doctor=done.stdout + done.stderr)


def _connection(bootstrap: str, **given: Any) -> KafkaConnection:
    settings = SecuritySettings(**{variable(name): value for name, value in given.items()})
    return kafka_connection(settings, bootstrap=bootstrap)


def _write_and_read(broker: SecureBroker, connection: KafkaConnection) -> None:
    """Do what the services do, with the whole login: make a topic, write into it, read it."""
    prefix = f"s{uuid4().hex[:8]}"
    topic = TopicNames.of(prefix).trades
    allow(broker.plain, f"User:{USER}", documented_rights(prefix))
    KafkaAdmin(connection).list_topics(timeout=10)
    KafkaAdmin(connection).create_topics([NewTopic(topic, num_partitions=1)])[topic].result(10)
    producer = Producer(connection.client({"enable.idempotence": True}))
    producer.produce(topic, b"seen")
    assert producer.flush(10) == 0
    consumer = Consumer(
        connection.client({"group.id": f"k2-{topic}", "auto.offset.reset": "earliest"})
    )
    consumer.assign([TopicPartition(topic, 0, 0)])
    (message,) = consumer.consume(1, 10)
    consumer.close()
    assert message.value() == b"seen"


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256"])
def test_the_other_logins_let_in(broker: SecureBroker, mechanism: str) -> None:
    _write_and_read(
        broker,
        _connection(
            broker.sasl,
            kafka_security_protocol="SASL_SSL",
            kafka_sasl_mechanism=mechanism,
            kafka_sasl_username=USER,
            kafka_sasl_password=PASSWORD,
            kafka_ssl_ca=broker.certificates.ca,
        ),
    )


def test_a_token_lets_in_and_without_one_it_is_said(broker: SecureBroker) -> None:
    secret = CANARIES["kafka_client_secret"]
    with token_issuer(login=f"k2:{secret}") as endpoint:

        def connection(secret: str) -> KafkaConnection:
            return _connection(
                broker.sasl,
                kafka_security_protocol="SASL_SSL",
                kafka_sasl_mechanism="OAUTHBEARER",
                kafka_token_url=endpoint,
                kafka_client_id="k2",
                kafka_client_secret=secret,
                kafka_ssl_ca=broker.certificates.ca,
            )

        _write_and_read(broker, connection(secret))
        refused = KafkaAdmin(connection(WRONG))
        with pytest.raises(KafkaException):
            refused.list_topics(timeout=3)
        why = refused.why()
        assert "Kafka refuses the login" in why
        assert WRONG not in why


def test_a_certificate_of_our_own_lets_in(broker: SecureBroker) -> None:
    own = broker.certificates
    _write_and_read(
        broker,
        _connection(
            broker.mutual,
            kafka_security_protocol="SSL",
            kafka_ssl_ca=own.ca,
            kafka_ssl_certificate=own.client_certificate,
            kafka_ssl_key=own.client_key,
            kafka_ssl_key_password=CANARIES["kafka_ssl_key_password"],
        ),
    )
    without = KafkaAdmin(
        _connection(broker.mutual, kafka_security_protocol="SSL", kafka_ssl_ca=own.ca)
    )
    with pytest.raises(KafkaException):
        without.list_topics(timeout=3)
    assert "KAFKA_SSL_CERTIFICATE_LOCATION" in without.why()
