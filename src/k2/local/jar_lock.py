"""The lock of the Java parts: text in, artifacts with checksums out. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import PurePosixPath

from k2.errors import StopError

_HEX_DIGITS = frozenset("0123456789abcdef")
# None of these can leave the directory that a path is built in, and all of Maven's names fit.
_NAME_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-+")


@dataclass(frozen=True, slots=True, order=True)
class Artifact:
    """One file of a Maven repository, with what it must contain.

    Attributes:
        group: Maven group, dotted.
        name: Maven artifact id.
        version: Exact version, never a range.
        classifier: Variant of the artifact, or the empty string.
        type: File name extension without its first dot: ``jar``, ``tar.gz``.
        sha256: Lower-case hex digest of the whole file.
        size_bytes: Length of the whole file.
    """

    group: str
    name: str
    version: str
    classifier: str
    type: str
    sha256: str
    size_bytes: int

    @property
    def coordinate(self) -> str:
        """``group:artifact:version[:classifier][@type]``, as the lock writes it."""
        classifier = f":{self.classifier}" if self.classifier else ""
        kind = "" if self.type == "jar" else f"@{self.type}"
        return f"{self.group}:{self.name}:{self.version}{classifier}{kind}"

    @property
    def file_name(self) -> str:
        """Name of the file in every Maven repository."""
        classifier = f"-{self.classifier}" if self.classifier else ""
        return f"{self.name}-{self.version}{classifier}.{self.type}"

    @property
    def repository_path(self) -> PurePosixPath:
        """Path of the file below the root of any Maven repository, local or remote."""
        folder = PurePosixPath(*self.group.split("."), self.name, self.version)
        return folder / self.file_name


@dataclass(frozen=True)
class JarLock:
    """Everything the embedded stack needs from a Maven repository."""

    artifacts: tuple[Artifact, ...]

    @property
    def jars(self) -> tuple[Artifact, ...]:
        """The broker's class path."""
        return tuple(artifact for artifact in self.artifacts if artifact.type == "jar")

    @property
    def registry_archive(self) -> Artifact:
        """The schema registry, packed.

        Raises:
            StopError: If the lock does not hold exactly one ``tar.gz``.
        """
        archives = [artifact for artifact in self.artifacts if artifact.type == "tar.gz"]
        if len(archives) != 1:
            raise StopError(
                f"the jar lock holds {len(archives)} tar.gz archives, expected the registry's one; "
                "make it again with scripts/lock_jars.py"
            )
        return archives[0]

    @cached_property
    def digest(self) -> str:
        """Sixteen hex digits that change when any content or the set of files does."""
        return sha256(format_lock(self.artifacts).encode()).hexdigest()[:16]


def parse_lock(text: str) -> JarLock:
    """Read a lock file.

    Args:
        text: Lines ``sha256 size group:artifact:version[:classifier][@type]``; empty lines and
            lines that begin with ``#`` are ignored.

    Raises:
        StopError: If a line is malformed or names a file twice: a lock is made by a program, so
            such a line is damage.
    """
    artifacts: list[Artifact] = []
    seen: set[str] = set()
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        artifact = _parse_line(line, number=number)
        if artifact.file_name in seen:
            raise StopError(f"jar lock line {number}: {artifact.file_name} is there twice")
        seen.add(artifact.file_name)
        artifacts.append(artifact)
    if not artifacts:
        raise StopError("the jar lock is empty; make it again with scripts/lock_jars.py")
    return JarLock(tuple(artifacts))


def format_lock(artifacts: Iterable[Artifact]) -> str:
    """Write the lines of a lock, sorted by coordinate, without a header."""
    lines = (f"{a.sha256} {a.size_bytes} {a.coordinate}\n" for a in sorted(artifacts))
    return "".join(lines)


def _parse_line(line: str, *, number: int) -> Artifact:
    fields = line.split()
    if len(fields) != 3:
        raise StopError(f"jar lock line {number}: expected 3 fields, found {len(fields)}")
    digest, size, coordinate = fields
    if len(digest) != 64 or not _HEX_DIGITS.issuperset(digest):
        raise StopError(f"jar lock line {number}: not a lower-case sha256: {digest!r}")
    if not (size.isascii() and size.isdigit() and int(size) > 0):
        raise StopError(f"jar lock line {number}: not a size in bytes: {size!r}")
    base, _, kind = coordinate.partition("@")
    parts = [*base.split(":"), *([kind] if "@" in coordinate else [])]
    if len(base.split(":")) not in {3, 4} or not all(_is_name(part) for part in parts):
        raise StopError(f"jar lock line {number}: not a Maven coordinate: {coordinate!r}")
    group, name, version, *classifier = base.split(":")
    return Artifact(
        group=group,
        name=name,
        version=version,
        classifier=classifier[0] if classifier else "",
        type=kind or "jar",
        sha256=digest,
        size_bytes=int(size),
    )


def _is_name(part: str) -> bool:
    return bool(part) and _NAME_CHARACTERS.issuperset(part) and ".." not in part
