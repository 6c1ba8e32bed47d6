"""Kafka and registry as the settings of security name them."""

from pathlib import Path

from pydantic import SecretStr

from k2.kafka.connection import KafkaConnection
from k2.kafka.registry import Registry
from k2.settings.security import SecuritySettings


def kafka_connection(settings: SecuritySettings, *, bootstrap: str) -> KafkaConnection:
    """Return where Kafka is and how k2 is let in, in librdkafka's names."""
    if settings.kafka_security_protocol == "PLAINTEXT":
        return KafkaConnection(bootstrap)
    given: dict[str, str | SecretStr | Path | None] = {
        "security.protocol": settings.kafka_security_protocol,
        "sasl.mechanism": settings.kafka_sasl_mechanism,
        "sasl.username": settings.kafka_sasl_username,
        "sasl.password": settings.kafka_sasl_password,
        "sasl.oauthbearer.method": "oidc" if settings.kafka_token_url else "",
        "sasl.oauthbearer.token.endpoint.url": settings.kafka_token_url,
        "sasl.oauthbearer.client.id": settings.kafka_client_id,
        "sasl.oauthbearer.client.secret": settings.kafka_client_secret,
        "sasl.oauthbearer.scope": settings.kafka_token_scope,
        "ssl.ca.location": settings.kafka_ssl_ca,
        "ssl.certificate.location": settings.kafka_ssl_certificate,
        "ssl.key.location": settings.kafka_ssl_key,
        "ssl.key.password": settings.kafka_ssl_key_password,
    }
    return KafkaConnection(
        bootstrap,
        {
            name: value if isinstance(value, SecretStr) else str(value)
            for name, value in given.items()
            if value
        },
    )


def registry_of(settings: SecuritySettings, *, url: str) -> Registry:
    """Return the registry with its login."""
    return Registry(
        url,
        username=settings.registry_username,
        password=settings.registry_password,
        ca=settings.registry_ca,
    )
