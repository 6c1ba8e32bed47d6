"""What Kafka says when it does not allow something, with where to look."""

from confluent_kafka import KafkaError

_NOT_ALLOWED = frozenset(
    {
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    }
)


def explained(problem: KafkaError) -> str:
    """Return Kafka's words; where a right is missing, also which page lists those k2 needs."""
    if problem.code() not in _NOT_ALLOWED:
        return problem.str()
    return f"{problem.str()}: docs/operations/kafka-access.md has the rights that k2 needs"
