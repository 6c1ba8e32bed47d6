"""Where Kafka is and how k2 is let in: the part that every client's settings have in common."""

from collections.abc import Mapping
from typing import Any

from pydantic import SecretStr


class KafkaConnection:
    """An address and, where Kafka asks for more, protocol, certificates and login.

    It is handed around instead of the settings themselves because its own text shows no secret;
    the secrets are taken out for the moment in which a client is made.
    """

    def __init__(
        self, bootstrap: str, security: Mapping[str, str | SecretStr] | None = None
    ) -> None:
        """Name the host:port pairs, and librdkafka's settings of security; none is plaintext."""
        self.bootstrap = bootstrap
        self._security = dict(security or {})

    def client(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Return a client's whole settings. They hold secrets: do not keep them."""
        return {
            "bootstrap.servers": self.bootstrap,
            **{
                name: value.get_secret_value() if isinstance(value, SecretStr) else value
                for name, value in self._security.items()
            },
            **settings,
        }

    @property
    def protocol(self) -> str:
        """What is spoken: PLAINTEXT, SSL or SASL_SSL."""
        return str(self._security.get("security.protocol", "PLAINTEXT"))

    def __repr__(self) -> str:
        """Return address and protocol."""
        return f"KafkaConnection({self.bootstrap!r}, {self.protocol})"
