"""The shell round Kafka's admin client: what the cluster says of itself; blocking."""

import ssl
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    ConfigResource,
    ResourceType,
)

from k2.doctor.finding import Unseen
from k2.doctor.kafka_judgement import Cluster
from k2.doctor.topics_judgement import Topic
from k2.errors import RetryError
from k2.settings import Settings

TIMEOUT_S = 5.0


def client_settings(settings: Settings) -> dict[str, Any]:
    """Return what every client of the doctor is made with; what goes wrong is said by findings.

    They hold secrets: show them to nobody.
    """
    return settings.kafka.client({"log_level": 0})


def tls_with_brokers(settings: Settings) -> ssl.SSLContext | None:
    """Return whom to believe and what to show of our own, or None where nothing is encrypted.

    Raises:
        RetryError: If a file cannot be read, or the password does not open the key.
    """
    if settings.kafka.protocol == "PLAINTEXT":
        return None
    try:
        context = ssl.create_default_context(cafile=settings.kafka_ssl_ca)
    except OSError as exc:
        raise RetryError(f"no certificates in KAFKA_SSL_CA_LOCATION: {exc}") from exc
    if settings.kafka_ssl_certificate is not None:
        secret = settings.kafka_ssl_key_password
        # Without any password OpenSSL would ask for it on the terminal.
        password = secret.get_secret_value() if secret is not None else ""
        try:
            context.load_cert_chain(
                settings.kafka_ssl_certificate, settings.kafka_ssl_key, password
            )
        except OSError as exc:
            raise RetryError(
                "our own certificate cannot be used, see KAFKA_SSL_CERTIFICATE_LOCATION, "
                f"KAFKA_SSL_KEY_LOCATION and KAFKA_SSL_KEY_PASSWORD: {exc}"
            ) from exc
    return context


class KafkaLook:
    """One admin client, and the metadata it got."""

    def __init__(self, client: Mapping[str, Any]) -> None:
        """Make the client; nothing is contacted yet."""
        self._admin = AdminClient(dict(client))
        self._metadata: Any = None

    def cluster(self) -> Cluster | Unseen:
        """Ask for the metadata that all else starts from."""
        began_s = time.monotonic()
        try:
            self._metadata = self._admin.list_topics(timeout=TIMEOUT_S)
        except KafkaException as exc:
            return Unseen(reason(exc))
        took_s = time.monotonic() - began_s
        return Cluster(str(self._metadata.cluster_id), len(self._metadata.brokers), took_s)

    def brokers(self) -> dict[int, tuple[str, int]]:
        """Return each broker's host and port as it advertises them: what clients connect to."""
        return {number: (b.host, b.port) for number, b in self._metadata.brokers.items()}

    def broker_settings(self) -> dict[int, dict[str, str] | Unseen]:
        """Ask each broker for its settings."""
        found: dict[int, dict[str, str] | Unseen] = {}
        for broker_id in self._metadata.brokers:
            resource = ConfigResource(ResourceType.BROKER, str(broker_id))
            future = self._admin.describe_configs([resource], request_timeout=TIMEOUT_S)[resource]
            found[broker_id] = _settings(future)
        return found

    def topics(self, names: Iterable[str]) -> dict[str, Topic]:
        """Return those of the topics that exist, with the worst of their partitions."""
        present = {
            name: list(self._metadata.topics[name].partitions.values())
            for name in names
            if name in self._metadata.topics
        }
        if not present:
            return {}
        resources = {name: ConfigResource(ResourceType.TOPIC, name) for name in present}
        futures = self._admin.describe_configs(list(resources.values()), request_timeout=TIMEOUT_S)
        topics = {}
        for name, partitions in present.items():
            settings = _settings(futures[resources[name]])
            topics[name] = Topic(
                partitions=len(partitions),
                replicas=min(len(one.replicas) for one in partitions),
                in_sync=min(len(one.isrs) for one in partitions),
                leaderless=sum(one.leader < 0 for one in partitions),
                settings=None if isinstance(settings, Unseen) else settings,
            )
        return topics


def _settings(future: "Future[dict[str, Any]]") -> dict[str, str] | Unseen:
    try:
        entries = future.result(TIMEOUT_S + 1)
    except KafkaException as exc:
        return Unseen(reason(exc))
    except TimeoutError:
        return Unseen(f"nothing answered within {TIMEOUT_S:g} s")
    return {name: entry.value for name, entry in entries.items() if entry.value is not None}


def reason(exc: KafkaException) -> str:
    """Return Kafka's words for what went wrong."""
    return str(exc.args[0].str())
