import pytest
from confluent_kafka import KafkaException
from pydantic import SecretStr

from k2.errors import StopError
from k2.kafka.admin import KafkaAdmin, unreachable
from k2.kafka.connection import KafkaConnection
from k2.local.ports import pick_free

SECRET = KafkaConnection(
    "kafka:9093",
    {
        "security.protocol": "SASL_SSL",
        "sasl.password": SecretStr("canary"),  # pragma: allowlist secret
    },
)


def test_a_connection_is_part_of_every_clients_settings() -> None:
    plain = KafkaConnection("a:1,b:2")
    assert plain.client({"group.id": "g"}) == {"bootstrap.servers": "a:1,b:2", "group.id": "g"}
    assert SECRET.client({})["sasl.password"] == "canary"  # pragma: allowlist secret
    assert (plain.protocol, SECRET.protocol) == ("PLAINTEXT", "SASL_SSL")


def test_its_text_shows_no_secret() -> None:
    assert repr(SECRET) == "KafkaConnection('kafka:9093', SASL_SSL)"
    assert "canary" not in f"{SECRET} {vars(SECRET)}"


def test_a_kafka_that_is_not_there_is_told_with_its_address() -> None:
    (port,) = pick_free(1)
    admin = KafkaAdmin(KafkaConnection(f"127.0.0.1:{port}"))
    with pytest.raises(KafkaException) as caught:
        admin.list_topics(timeout=0.5)
    told = unreachable(admin, caught.value)
    assert told.startswith("Kafka cannot be reached, is it running? (")
    assert f"127.0.0.1:{port}" in told
    assert "refused" in told
    assert admin.why() == ""  # what was told is forgotten


def test_what_the_library_does_not_take_stops_and_shows_no_secret() -> None:
    wrong = KafkaConnection(
        "kafka:9093",
        {
            "security.protocol": "SSL",
            "ssl.ca.location": "/nowhere/ca.pem",
            "ssl.key.password": SecretStr("canary"),  # pragma: allowlist secret
        },
    )
    with pytest.raises(StopError, match=r"ssl.ca.location failed.*see KAFKA_SSL_") as caught:
        KafkaAdmin(wrong)
    assert "canary" not in str(caught.value)
    assert caught.value.__cause__ is None  # its frames hold the settings
