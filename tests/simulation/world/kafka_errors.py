"""Errors and messages as confluent_kafka gives them."""

from confluent_kafka import TIMESTAMP_CREATE_TIME, KafkaError, KafkaException


class BrokerError(Exception):
    """The broker refuses a request; ``code`` is Kafka's own."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def timed_out(what: str) -> KafkaException:
    """Return what a call raises whose answer did not come in time: call it again."""
    return KafkaException(KafkaError(KafkaError._TIMED_OUT, f"{what}: timed out", retriable=True))


def unreachable(what: str) -> KafkaException:
    """Return what a call raises that found no broker."""
    return KafkaException(
        KafkaError(KafkaError._TRANSPORT, f"{what}: broker transport failure", retriable=True)
    )


def erroneous_state(what: str) -> KafkaException:
    """Return what a call raises that does not fit the state the producer is in."""
    return KafkaException(KafkaError(KafkaError._STATE, what))


def fatal(code: int, reason: str) -> KafkaError:
    """Return the error after which an instance is good for nothing."""
    return KafkaError(code, reason, fatal=True)


def abortable(code: int, reason: str) -> KafkaError:
    """Return the error after which the transaction has to be aborted."""
    return KafkaError(code, reason, txn_requires_abort=True)


FENCED = fatal(KafkaError._FENCED, "there is a newer producer with the same transactionalId")


class Message:
    """A record as consumed, or an event such as the end of a partition."""

    __slots__ = ("_error", "_key", "_offset", "_partition", "_timestamp_ms", "_topic", "_value")

    def __init__(
        self,
        topic: str,
        partition: int,
        offset: int,
        *,
        key: bytes | None = None,
        value: bytes | None = None,
        timestamp_ms: int = 0,
        error: KafkaError | None = None,
    ) -> None:
        self._topic = topic
        self._partition = partition
        self._offset = offset
        self._key = key
        self._value = value
        self._timestamp_ms = timestamp_ms
        self._error = error

    def topic(self) -> str:
        return self._topic

    def partition(self) -> int:
        return self._partition

    def offset(self) -> int:
        return self._offset

    def key(self) -> bytes | None:
        return self._key

    def value(self) -> bytes | None:
        return self._value

    def error(self) -> KafkaError | None:
        return self._error

    def headers(self) -> None:
        return None

    def timestamp(self) -> tuple[int, int]:
        return TIMESTAMP_CREATE_TIME, self._timestamp_ms
