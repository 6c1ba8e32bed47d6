"""Where locked files may come from: the user's Maven repository, a mirror, the default address.

In: the environment and ``~/.m2/settings.xml``. Out: one local folder, addresses in order, and
the TLS trust of this machine. Whatever the source, the lock's sha256 decides what is accepted.
"""

import ssl
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from k2.errors import StopError

MIRROR_VARIABLE = "K2_MAVEN_MIRROR"
CACHE_VARIABLE = "K2_CACHE_DIR"
# What pip, requests and curl obey; OpenSSL itself already obeys SSL_CERT_FILE and SSL_CERT_DIR.
_CA_BUNDLE_VARIABLES = ("REQUESTS_CA_BUNDLE", "PIP_CERT", "CURL_CA_BUNDLE")


@dataclass(frozen=True)
class JarSources:
    """Where to look, in this order.

    Attributes:
        repository: The user's local Maven repository; it need not exist.
        addresses: Roots of remote Maven repositories, without a slash at the end.
        tls: Trust for the remote ones.
    """

    repository: Path
    addresses: tuple[str, ...]
    tls: ssl.SSLContext


def cache_dir(environ: Mapping[str, str]) -> Path:
    """Return the folder for what can be downloaded again, shared by all checkouts of a user."""
    if own := environ.get(CACHE_VARIABLE):
        return Path(own).expanduser().absolute()
    base = environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache").expanduser().absolute() / "k2"


def find_sources(environ: Mapping[str, str]) -> JarSources:
    """Read where this machine gets Maven files from.

    Raises:
        StopError: If the mirror is not an http(s) address.
    """
    # Imported here because it costs 0.2 s and only a first start needs it.
    from jgo.constants import MAVEN_CENTRAL_URL  # noqa: PLC0415

    settings_path = Path.home() / ".m2" / "settings.xml"
    settings = settings_path.read_text(encoding="utf-8") if settings_path.is_file() else ""
    local = environ.get("M2_REPO") or local_repository(settings)
    mirror = environ.get(MIRROR_VARIABLE, "") or mirror_of_central(settings) or ""
    if mirror and not mirror.startswith(("http://", "https://")):
        raise StopError(
            f"the Maven mirror {mirror!r} is not an http:// or https:// address "
            f"(from {MIRROR_VARIABLE} or {settings_path})"
        )
    addresses = [mirror.rstrip("/")] if mirror else []
    return JarSources(
        repository=Path(local).expanduser() if local else Path.home() / ".m2" / "repository",
        addresses=(*addresses, str(MAVEN_CENTRAL_URL).rstrip("/")),
        tls=tls_context(environ),
    )


def mirror_of_central(settings: str) -> str | None:
    """Return the address of the first mirror in a ``settings.xml`` that covers Maven's default.

    Source: Maven, "Using Mirrors for Repositories" (checked 2026-11-21).
    """
    for mirror in _elements(settings, "mirror"):
        covered = {name.strip() for name in (_text(mirror, "mirrorOf") or "").split(",")}
        if covered & {"*", "external:*", "central"} and "!central" not in covered:
            return _text(mirror, "url")
    return None


def local_repository(settings: str) -> str | None:
    """Return the local repository that a ``settings.xml`` names, or None."""
    for root in _elements(settings, "settings"):
        return _text(root, "localRepository")
    return None


def tls_context(environ: Mapping[str, str]) -> ssl.SSLContext:
    """Trust what the system trusts, and the bundles that pip, requests and curl are told of."""
    context = ssl.create_default_context()
    for variable in _CA_BUNDLE_VARIABLES:
        path = Path(environ.get(variable, ""))
        if path.is_file():
            context.load_verify_locations(cafile=path)
    return context


def _elements(settings: str, name: str) -> list[ET.Element]:
    try:
        root = ET.fromstring(settings)  # noqa: S314 (the user's own Maven settings)
    except ET.ParseError:
        # A broken settings.xml is Maven's to complain about; the default address still works.
        return []
    return [element for element in root.iter() if element.tag.rpartition("}")[2] == name]


def _text(parent: ET.Element, name: str) -> str | None:
    for child in parent:
        if child.tag.rpartition("}")[2] == name and child.text:
            return child.text.strip()
    return None
