"""A partition without a leader yet is asked again, one that cannot be asked is said to be so."""

from typing import Any, cast

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException

from k2.errors import RetryError
from k2.kafka import watermarks as module
from k2.kafka.watermarks import watermarks


class Partition:
    """Answers what was prepared, one after another; the last one for ever."""

    def __init__(self, *answers: tuple[int, int] | int) -> None:
        self._answers = list(answers)
        self.asked = 0

    def get_watermark_offsets(self, partition: Any, timeout: float) -> tuple[int, int]:
        assert (partition.topic, partition.partition, timeout) == ("t", 3, 2.0)
        self.asked += 1
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, int):
            raise KafkaException(KafkaError(answer))
        return answer


def _ends(partition: Partition) -> tuple[int, int]:
    return watermarks(cast("Consumer", partition), "t", 3, timeout_s=2.0)


@pytest.mark.parametrize(
    "code", [KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE]
)
def test_a_partition_that_has_no_leader_yet_is_asked_again(code: int) -> None:
    partition = Partition(code, code, (5, 9))
    assert _ends(partition) == (5, 9)
    assert partition.asked == 3


def test_it_is_asked_for_so_long_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LEADER_WAIT_MAX_S", 0.3)
    partition = Partition(KafkaError.NOT_LEADER_FOR_PARTITION)
    with pytest.raises(RetryError, match="Kafka did not tell the end of t: "):
        _ends(partition)
    assert partition.asked > 1


def test_what_time_does_not_mend_is_said_at_once() -> None:
    partition = Partition(KafkaError._TIMED_OUT)
    with pytest.raises(RetryError, match="Kafka did not tell the end of t: "):
        _ends(partition)
    assert partition.asked == 1
