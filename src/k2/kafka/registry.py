"""The schema registry: register, look up, check. A thin shell round Confluent's client."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
import msgspec
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from confluent_kafka.schema_registry.error import SchemaRegistryError

from k2.errors import RetryError, StopError

TIMEOUT_S = 5.0


class Registered(msgspec.Struct, frozen=True):
    """One version of a subject."""

    subject: str
    schema_id: int
    version: int
    schema_text: str


class Registry:
    """Blocking calls; run them off the event loop."""

    def __init__(self, url: str) -> None:
        """Name the registry; nothing is contacted yet."""
        self.url = url
        self._client = SchemaRegistryClient({"url": url, "timeout": TIMEOUT_S, "max.retries": 0})

    def register(self, subject: str, schema_text: str) -> int:
        """Register a schema (again is fine) and return its id.

        Raises:
            StopError: If the registry holds an incompatible schema for the subject.
            RetryError: If the registry cannot be reached.
        """
        with self._errors():
            return int(self._client.register_schema(subject, Schema(schema_text, "AVRO")))

    def compatible(self, subject: str, schema_text: str) -> bool:
        """Say whether the subject's latest schema can be followed by this one."""
        with self._errors():
            try:
                return bool(self._client.test_compatibility(subject, Schema(schema_text, "AVRO")))
            except SchemaRegistryError as exc:
                if exc.http_status_code == 404:
                    return True
                raise

    def latest(self, subject: str) -> Registered | None:
        """Return the newest version, or None when the subject is unknown."""
        with self._errors():
            try:
                found = self._client.get_latest_version(subject)
            except SchemaRegistryError as exc:
                if exc.http_status_code == 404:
                    return None
                raise
        return Registered(subject, found.schema_id or 0, found.version or 0, _text(found.schema))

    def schema_text(self, schema_id: int) -> str | None:
        """Return the schema a record names, or None when the registry does not know the id."""
        with self._errors():
            try:
                return _text(self._client.get_schema(schema_id))
            except SchemaRegistryError as exc:
                if exc.http_status_code == 404:
                    return None
                raise

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except SchemaRegistryError as exc:
            if exc.http_status_code == 409:
                raise StopError(
                    f"the registry refuses the schema as incompatible: {exc.error_message}; "
                    "compare with `k2 schema show`"
                ) from exc
            raise RetryError(f"schema registry at {self.url}: {exc.error_message}") from exc
        except (httpx2.HTTPError, OSError) as exc:
            raise RetryError(f"schema registry at {self.url} cannot be reached: {exc}") from exc


def _text(schema: Any) -> str:
    text = schema.schema_str
    if not isinstance(text, str):
        raise RetryError("the registry answered a schema without text")
    return text
