from confluent_kafka import KafkaError

from k2.kafka.rights import explained


def test_a_missing_right_names_the_page_and_nothing_else_does() -> None:
    assert "kafka-access.md" in explained(KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED))
    assert "kafka-access.md" not in explained(KafkaError(KafkaError._TRANSPORT))
