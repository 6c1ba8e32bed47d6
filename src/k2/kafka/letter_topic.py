"""Dead letters in Kafka: a plain producer, made at the first letter, that never waits."""

from collections.abc import Callable
from typing import Any

from confluent_kafka import KafkaError, KafkaException

from k2.kafka.clients import LIBRARY, Clients
from k2.kafka.connection import KafkaConnection

WAITING_MAX_LETTERS = 10_000
WAITING_MAX_KBYTES = 16 << 10
DELIVERY_TIMEOUT_S = 300.0
LETTER_MAX_BYTES = 4 << 20


class LetterTopic:
    """The ``.dlq`` topic, for one thread. Whoever uses it calls ``look`` now and then."""

    def __init__(self, kafka: KafkaConnection, *, topic: str, clients: Clients = LIBRARY) -> None:
        """Name the topic; nothing is contacted yet."""
        self.sent = 0
        self.not_sent = 0
        """Given up: Kafka was away for too long, too many waited, or it refused."""
        self.problem = ""
        """The last reason."""
        self._kafka = kafka
        self._settings: dict[str, Any] = {
            "acks": "all",
            "enable.idempotence": True,
            # By symbol, as the trades: Kafka's own rule.
            "partitioner": "murmur2_random",
            "compression.type": "lz4",
            "linger.ms": 50,
            "message.max.bytes": LETTER_MAX_BYTES,
            "message.timeout.ms": round(DELIVERY_TIMEOUT_S * 1000),
            "queue.buffering.max.messages": WAITING_MAX_LETTERS,
            "queue.buffering.max.kbytes": WAITING_MAX_KBYTES,
            "reconnect.backoff.max.ms": 1_000,
            "log_level": 2,
        }
        self._topic = topic
        self._make: Callable[..., Any] = clients.producer
        self._producer: Any = None

    def send(self, letter: bytes, *, symbol: str | None) -> None:
        """Hand a letter over; what becomes of it is counted."""
        key = None if symbol is None else symbol.encode("utf-8", errors="replace")
        try:
            try:
                self._produce(letter, key)
            except KafkaException as exc:
                if exc.args[0].code() != KafkaError._FATAL:  # noqa: SLF001 - the library's name
                    raise
                self._replace(exc.args[0].str())
                self._produce(letter, key)
        except KafkaException as exc:
            self._failed(exc.args[0].str())
        except BufferError:
            self._failed("too many letters wait for Kafka")

    def look(self) -> None:
        """Take in what Kafka said of the letters that were sent."""
        if self._producer is not None:
            self._producer.poll(0)

    @property
    def waiting(self) -> int:
        """Letters of which nothing is known yet."""
        return len(self._producer) if self._producer is not None else 0

    def close(self, timeout_s: float) -> None:
        """Wait so long for what waits; what waits still was not sent."""
        if self._producer is None:
            return
        self._producer.flush(timeout_s)
        self._let_go("Kafka was not there at the end")

    def _produce(self, letter: bytes, key: bytes | None) -> None:
        if self._producer is None:
            self._producer = self._make(self._kafka.client(self._settings))
        self._producer.produce(self._topic, value=letter, key=key, on_delivery=self._told)

    def _replace(self, why: str) -> None:
        """Have a new producer made: after a fatal error the library's sends nothing, for ever."""
        self.look()
        self._let_go(why)

    def _let_go(self, why: str) -> None:
        left, self._producer = len(self._producer), None
        if left:
            self.not_sent += left
            self.problem = why

    def _told(self, problem: KafkaError | None, _message: Any) -> None:
        if problem is None:
            self.sent += 1
        else:
            self._failed(problem.str())

    def _failed(self, why: str) -> None:
        self.not_sent += 1
        self.problem = why
