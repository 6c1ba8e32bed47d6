"""Where a partition begins and ends, asked until its leader says so."""

import time

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from k2.errors import RetryError

LEADER_WAIT_MAX_S = 5.0
LEADER_ASK_EVERY_S = 0.1

_NO_LEADER_YET = (KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE)


def watermarks(
    consumer: Consumer, topic: str, partition: int, *, timeout_s: float
) -> tuple[int, int]:
    """Return a partition's first offset and the one behind its last record; blocking.

    A topic that was just created, or whose broker just came back, has no leader for a moment. The
    consumer's isolation says which end it is: that of all records, or of the committed ones.

    Raises:
        RetryError: If Kafka does not say.
    """
    deadline_s = time.monotonic() + LEADER_WAIT_MAX_S
    while True:
        try:
            first, end = consumer.get_watermark_offsets(
                TopicPartition(topic, partition), timeout=timeout_s
            )
        except KafkaException as exc:
            error = exc.args[0]
            if error.code() not in _NO_LEADER_YET or time.monotonic() > deadline_s:
                raise RetryError(f"Kafka did not tell the end of {topic}: {error.str()}") from exc
            time.sleep(LEADER_ASK_EVERY_S)
        else:
            return int(first), int(end)
