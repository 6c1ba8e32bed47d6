"""Fetch one locked file over HTTP: an address in, a complete and checked file out, or nothing."""

import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from hashlib import file_digest, sha256
from pathlib import Path
from tempfile import NamedTemporaryFile
from threading import Event
from typing import IO
from urllib.parse import urlsplit

from k2.errors import RetryError
from k2.local.jar_lock import Artifact
from k2.local.jar_sources import JarSources

PART_SUFFIX = ".part"
_CHUNK_BYTES = 256 * 1024
_SOCKET_TIMEOUT_S = 30.0
# The JDK's AOT cache refuses a jar whose time has changed. With one time for all, a jar that
# was downloaded again is still the jar the cache was trained with.
_MTIME_S = 1_577_836_800


class DownloadCancelledError(RetryError):
    """Somebody asked for the download to end; what was there of the file is removed."""


def fetch(
    artifact: Artifact,
    target: Path,
    *,
    sources: JarSources,
    received: Callable[[int], None],
    cancelled: Event,
    attempts: int = 3,
    retry_delay_s: float = 0.5,
) -> None:
    """Put ``artifact`` at ``target``, whole and checked, from the first source that has it.

    Args:
        artifact: What to fetch.
        target: Where it goes; its folder is made.
        sources: Where to look, in order.
        received: Called with the bytes that arrived; negative when an attempt is given up.
        cancelled: Once set, the download ends within one chunk.
        attempts: Tries per address; only failures that may pass are tried again.
        retry_delay_s: Wait before the second try, doubled for each one after.

    Raises:
        RetryError: If no source delivered the file. Nothing is left behind.
    """
    local = sources.repository / artifact.repository_path
    if has_content(local, artifact):
        with _part_of(target) as part, local.open("rb") as source:
            _copy(source, part, artifact, received=received, cancelled=cancelled)
        return
    failures: list[str] = []
    for address in sources.addresses:
        for attempt in range(attempts):
            if attempt and cancelled.wait(retry_delay_s * 2 ** (attempt - 1)):
                break
            failure = _try_address(
                f"{address}/{artifact.repository_path}",
                artifact,
                target,
                sources=sources,
                received=received,
                cancelled=cancelled,
            )
            if failure is None:
                return
            failures.append(f"{urlsplit(address).hostname}: {failure}")
            if isinstance(failure, _NotThereError):
                break
    if cancelled.is_set():
        raise DownloadCancelledError(f"download of {artifact.coordinate} was cancelled")
    reasons = "; ".join(dict.fromkeys(failures))
    raise RetryError(f"cannot download {artifact.coordinate} ({reasons})")


def has_content(path: Path, artifact: Artifact) -> bool:
    """Say whether a file exists and is exactly the locked one."""
    try:
        if path.stat().st_size != artifact.size_bytes:
            return False
        with path.open("rb") as file:
            return file_digest(file, "sha256").hexdigest() == artifact.sha256
    except OSError:
        return False


def set_locked_time(path: Path) -> None:
    """Give an installed file the one modification time that all of them have."""
    os.utime(path, (_MTIME_S, _MTIME_S))


class _NotThereError(RetryError):
    """This address does not have the file: asking it again is useless."""


def _try_address(
    url: str,
    artifact: Artifact,
    target: Path,
    *,
    sources: JarSources,
    received: Callable[[int], None],
    cancelled: Event,
) -> RetryError | None:
    opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=sources.tls))
    try:
        with (
            opener.open(url, timeout=_SOCKET_TIMEOUT_S) as response,
            _part_of(target) as part,
        ):
            _copy(response, part, artifact, received=received, cancelled=cancelled)
    except RetryError as error:
        return error
    except urllib.error.HTTPError as error:
        with error:
            if error.code in {401, 403, 404, 410}:
                return _NotThereError(f"HTTP {error.code}")
            return RetryError(f"HTTP {error.code}")
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        return RetryError(f"{type(error).__name__}: {reason}")
    return None


@contextmanager
def _part_of(target: Path) -> Iterator[IO[bytes]]:
    """Yield a file that becomes ``target`` when the block ends well, and vanishes otherwise."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile(
        dir=target.parent, prefix=f".{target.name}.", suffix=PART_SUFFIX, delete=False
    ) as part:
        path = Path(part.name)
        try:
            yield part
            part.flush()
            os.fchmod(part.fileno(), 0o644)
            set_locked_time(path)
            path.replace(target)
        except BaseException:
            with suppress(FileNotFoundError):
                path.unlink()
            raise


def _copy(
    source: IO[bytes],
    part: IO[bytes],
    artifact: Artifact,
    *,
    received: Callable[[int], None],
    cancelled: Event,
) -> None:
    digest = sha256()
    size = 0
    try:
        while chunk := source.read(_CHUNK_BYTES):
            if cancelled.is_set():
                raise DownloadCancelledError("cancelled")
            digest.update(chunk)
            part.write(chunk)
            size += len(chunk)
            received(len(chunk))
            if size > artifact.size_bytes:
                raise RetryError(f"more than the {artifact.size_bytes} bytes the lock says")
        if size < artifact.size_bytes:
            raise RetryError(f"ended after {size} of {artifact.size_bytes} bytes")
        if digest.hexdigest() != artifact.sha256:
            raise RetryError(f"sha256 {digest.hexdigest()[:12]}..., not {artifact.sha256[:12]}...")
    except BaseException:
        received(-size)
        raise
