"""The schema registry: register, look up, check. A thin shell round its four requests.

Not the library's client: that brings an HTTP stack of its own, 15 MB in every service for a
question that is asked once (measured 2026-11-21).

Source: Confluent Schema Registry API reference, "Subjects", "Schemas", "Compatibility" (v1).
"""

import base64
import json
import ssl
import urllib.error
import urllib.parse
import urllib.request
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path
from typing import Any

import msgspec
from pydantic import SecretStr

from k2.errors import RetryError, StopError

TIMEOUT_S = 5.0
_CONTENT_TYPE = "application/vnd.schemaregistry.v1+json"

# The last three: cut off or no HTTP at all, no JSON, and JSON nested too deep to be a registry's.
_NO_ANSWER = (OSError, HTTPException, ValueError, RecursionError)


class Registered(msgspec.Struct, frozen=True):
    """One version of a subject."""

    subject: str
    schema_id: int
    version: int
    schema_text: str


class Registry:
    """Blocking calls; run them off the event loop."""

    def __init__(
        self,
        url: str,
        *,
        username: str = "",
        password: SecretStr | None = None,
        ca: Path | None = None,
    ) -> None:
        """Name the registry; nothing is contacted yet.

        Args:
            url: Its address.
            username: For HTTP basic authentication; empty where it asks for none.
            password: Of that user.
            ca: PEM certificates to believe instead of the system's.
        """
        self.url = url.rstrip("/")
        self._username = username
        self._password = password or SecretStr("")
        self._ca = ca

    def login(self) -> dict[str, str]:
        """Return the header that lets in, if one is needed. It is a secret: do not keep it."""
        if not self._username:
            return {}
        pair = f"{self._username}:{self._password.get_secret_value()}".encode()
        return {"Authorization": "Basic " + base64.b64encode(pair).decode()}

    def tls(self) -> ssl.SSLContext | None:
        """Return whom to believe, or None where nothing is encrypted.

        Raises:
            RetryError: If the file of certificates cannot be read.
        """
        if not self.url.startswith("https:"):
            return None
        try:
            return ssl.create_default_context(cafile=self._ca)
        except OSError as exc:
            raise RetryError(f"no certificates in SCHEMA_REGISTRY_CA_LOCATION: {exc}") from exc

    def register(self, subject: str, schema_text: str) -> int:
        """Register a schema (again is fine) and return its id.

        Raises:
            StopError: If the registry holds an incompatible schema for the subject.
            RetryError: If the registry cannot be reached.
        """
        body = {"schema": schema_text, "schemaType": "AVRO"}
        return int(self._expect(self._ask(f"/subjects/{_quoted(subject)}/versions", body), "id"))

    def compatible(self, subject: str, schema_text: str) -> bool:
        """Say whether the subject's latest schema can be followed by this one.

        Raises:
            RetryError: If the registry cannot be reached.
        """
        path = f"/compatibility/subjects/{_quoted(subject)}/versions/latest"
        found = self._ask(path, {"schema": schema_text, "schemaType": "AVRO"})
        return True if found is None else bool(self._expect(found, "is_compatible"))

    def latest(self, subject: str) -> Registered | None:
        """Return the newest version, or None when the subject is unknown.

        Raises:
            RetryError: If the registry cannot be reached.
        """
        found = self._ask(f"/subjects/{_quoted(subject)}/versions/latest")
        if found is None:
            return None
        return Registered(
            subject,
            int(self._expect(found, "id")),
            int(self._expect(found, "version")),
            str(self._expect(found, "schema")),
        )

    def schema_text(self, schema_id: int) -> str | None:
        """Return the schema a record names, or None when the registry does not know the id.

        Raises:
            RetryError: If the registry cannot be reached.
        """
        found = self._ask(f"/schemas/ids/{schema_id}")
        return None if found is None else str(self._expect(found, "schema"))

    def _ask(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any] | None:
        """Return the answer, or None for what the registry does not know."""
        request = urllib.request.Request(  # noqa: S310 - settings allow http and https only
            self.url + path,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": _CONTENT_TYPE, "Accept": f"{_CONTENT_TYPE}, application/json"},
        )
        for name, value in self.login().items():
            request.add_unredirected_header(name, value)  # it is for this address only
        try:
            with urllib.request.urlopen(  # noqa: S310 - as above
                request, timeout=TIMEOUT_S, context=self.tls()
            ) as reply:
                found = json.load(reply)
        except urllib.error.HTTPError as exc:
            answer = _answer(exc)
            if exc.code == HTTPStatus.NOT_FOUND and "error_code" in answer:
                return None  # any other server says 404 too: it knows no such path
            said = str(answer.get("message") or exc.reason or "no reason given")[:500]
            if exc.code == HTTPStatus.CONFLICT:
                raise StopError(
                    f"the registry refuses the schema as incompatible: {said}; "
                    "compare with `k2 schema show`"
                ) from exc
            if exc.code in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
                raise RetryError(
                    f"schema registry at {self.url} refuses the login ({exc.code}: {said}), see "
                    "SCHEMA_REGISTRY_USERNAME and SCHEMA_REGISTRY_PASSWORD"
                ) from exc
            raise RetryError(f"schema registry at {self.url} answered {exc.code}: {said}") from exc
        except _NO_ANSWER as exc:
            why = str(exc).strip()  # of what is no HTTP it is the first line
            raise RetryError(f"schema registry at {self.url} cannot be reached: {why}") from exc
        if not isinstance(found, dict):
            raise RetryError(f"schema registry at {self.url} answered no object")
        return found

    def _expect(self, found: dict[str, Any] | None, name: str) -> Any:
        if found is None or name not in found:
            raise RetryError(f"schema registry at {self.url} answered without {name!r}")
        return found[name]


def _quoted(subject: str) -> str:
    return urllib.parse.quote(subject, safe="")


def _answer(exc: urllib.error.HTTPError) -> dict[str, Any]:
    """Return what a registry says beside the status; nothing of what is none."""
    try:
        found = json.load(exc)
    except _NO_ANSWER:
        return {}
    return found if isinstance(found, dict) else {}
