"""The admin client, which knows why it is not let in.

librdkafka answers a wrong password, an unknown certificate and a broker that is not there with the
same "Broker transport failure" after the same 5 s (measured 2026-11-21, 2.16). Only its error
callback tells them apart.
"""

import re
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any, TypeVar

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from k2.errors import StopError
from k2.kafka.connection import KafkaConnection

_LOGIN = (
    "Kafka refuses the login, see KAFKA_SASL_MECHANISM, KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD"
)
_TLS = (
    "no TLS with Kafka, see KAFKA_SECURITY_PROTOCOL, KAFKA_SSL_CA_LOCATION and "
    "KAFKA_SSL_CERTIFICATE_LOCATION"
)
_ABSENT = "Kafka cannot be reached, is it running?"

ANSWER_SLACK_S = 1.0
"""What a request's answer is waited for beyond the request's own time."""

T = TypeVar("T")


class KafkaAdmin(AdminClient):
    """An admin client that keeps what the library complained of last."""

    def __init__(
        self, connection: KafkaConnection, settings: Mapping[str, Any] | None = None
    ) -> None:
        """Make the client; nothing is contacted yet.

        Raises:
            StopError: If the library does not accept the settings, such as a key's password.
        """
        self._connection = connection
        self._heard: dict[int, str] = {}
        own = {"log_level": 2, "error_cb": self._told, **(settings or {})}
        try:
            super().__init__(connection.client(own))
        except KafkaException as exc:
            raise StopError(
                f"no client for Kafka can be made ({exc.args[0].str()}): see KAFKA_SSL_* and "
                "KAFKA_SASL_*"
            ) from None  # the frames below hold the secrets

    def why(self) -> str:
        """Return what the library complained of since it was last asked, or nothing."""
        self.poll(0)
        heard, self._heard = self._heard, {}
        if said := heard.get(KafkaError._AUTHENTICATION):  # noqa: SLF001 - the library's name
            return f"{_LOGIN} ({said})"
        if said := heard.get(KafkaError._SSL):  # noqa: SLF001
            return f"{_TLS} ({said})"
        said = next((text for text in heard.values() if "SSL" in text), "")
        if said:
            return f"{_TLS} ({said})"
        if heard:
            return f"{_ABSENT} ({', '.join(heard.values())})"
        return ""

    def _told(self, problem: KafkaError) -> None:
        if problem.code() != KafkaError._ALL_BROKERS_DOWN:  # noqa: SLF001 - says nothing new
            self._heard[problem.code()] = _short(problem.str())


def answered(future: "Future[T]", *, request_timeout_s: float) -> T:
    """Return the answer to an admin request that may take ``request_timeout_s``.

    It is waited for somewhat longer: the library ends the request by its own clock and says so. Who
    stops waiting just then leaves it under way, and has a ``TimeoutError`` that no caller expects.

    Raises:
        KafkaException: As the library says, or because it says nothing.
    """
    try:
        return future.result(request_timeout_s + ANSWER_SLACK_S)
    except TimeoutError as exc:
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT)) from exc  # noqa: SLF001


def unreachable(admin: AdminClient, exc: KafkaException | TimeoutError) -> str:
    """Return why an admin client got no answer, in one line."""
    if isinstance(admin, KafkaAdmin) and (why := admin.why()):
        return why
    if isinstance(exc, TimeoutError):
        return "no answer"
    return f"{_ABSENT} ({exc.args[0].str()})"


def _short(text: str) -> str:
    """Return the library's text without how long the attempt took."""
    return re.sub(r" \(after \d+ms in state \w+\)", "", text)
