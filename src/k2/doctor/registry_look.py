"""The shell round the registry: what a subject is, and what may become of it; blocking."""

import json
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

from k2.doctor.finding import Unseen
from k2.doctor.registry_judgement import SubjectSeen
from k2.errors import RetryError
from k2.kafka.encoding import SCHEMA_TEXT
from k2.kafka.registry import Registry

TIMEOUT_S = 5.0


def look_at_subject(registry: Registry, subject: str) -> SubjectSeen | Unseen:
    """Ask for a subject's newest version, and whether ours may follow it; change nothing."""
    try:
        latest = registry.latest(subject)
        compatible = latest is None or registry.compatible(subject, SCHEMA_TEXT)
    except RetryError as exc:
        # The address may hold a password; host and port are in the lines above.
        return Unseen(str(exc).replace(f" at {registry.url}", ""))
    # Without this word Apicurio says NONE of a subject that has no level of its own.
    own = urllib.parse.quote(subject, safe="") + "?defaultToGlobal=true"
    return SubjectSeen(
        subject=subject,
        version=None if latest is None else latest.version,
        same=latest is not None and _same(latest.schema_text),
        compatible=compatible,
        level=_told(registry, f"/config/{own}", "compatibilityLevel")
        or _told(registry, "/config", "compatibilityLevel"),
        mode=_told(registry, f"/mode/{own}", "mode") or _told(registry, "/mode", "mode"),
    )


def _same(schema_text: str) -> bool:
    try:
        return bool(json.loads(schema_text) == json.loads(SCHEMA_TEXT))
    except ValueError:
        return False


def _told(registry: Registry, path: str, name: str) -> str:
    """Return one field of an answer, empty where this registry has no such thing."""
    accept = "application/vnd.schemaregistry.v1+json, application/json"
    request = urllib.request.Request(  # noqa: S310 - settings allow http and https only
        registry.url + path, headers={"Accept": accept}
    )
    for header, value in registry.login().items():
        request.add_unredirected_header(header, value)
    try:
        with urllib.request.urlopen(  # noqa: S310 - as above
            request, timeout=TIMEOUT_S, context=registry.tls()
        ) as reply:
            found: Any = json.load(reply)
    except (OSError, ValueError, RetryError):
        return ""
    return str(found.get(name, "")) if isinstance(found, dict) else ""
