"""Install the Java parts: the lock in, a class path and an unpacked registry out.

Everything lives in the user's cache under its sha256, so that checkouts share it, and appears
there whole or not at all. A start with everything in place reads sizes only (3 ms).
"""

import json
import shutil
import tarfile
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path, PurePosixPath
from tempfile import mkdtemp
from threading import Event

from rich.console import Console

from k2.errors import RetryError
from k2.local.download import (
    PART_SUFFIX,
    DownloadCancelledError,
    fetch,
    set_locked_time,
)
from k2.local.download_view import DownloadView
from k2.local.file_lock import FileLock
from k2.local.jar_lock import Artifact, JarLock, parse_lock
from k2.local.jar_sources import JarSources

_THREADS = 8
_LOCK_POLL_EVERY_S = 0.1
_MANIFEST = "k2-manifest.json"
_UNPACKING_SUFFIX = ".unpacking"
_KAFKA_TITLE = "Kafka"
_REGISTRY_TITLE = "schema registry"


@dataclass(frozen=True)
class Installation:
    """What the stack starts from.

    Attributes:
        class_path: The broker's jars, sorted, absolute.
        registry_dir: The unpacked registry; holds ``quarkus-run.jar``.
    """

    class_path: tuple[Path, ...]
    registry_dir: Path


def read_lock() -> JarLock:
    """Return the lock this version of k2 was built with."""
    return parse_lock(files("k2.local").joinpath("jars.lock").read_text(encoding="utf-8"))


def find_installation(lock: JarLock, *, cache_dir: Path) -> Installation | None:
    """Return what is installed, or None when any part is missing or has another size."""
    jars = tuple(_jar_path(cache_dir, artifact) for artifact in lock.jars)
    if not all(_has_size(path, a.size_bytes) for path, a in zip(jars, lock.jars, strict=True)):
        return None
    registry_dir = _registry_dir(cache_dir, lock.registry_archive)
    return Installation(tuple(sorted(jars)), registry_dir) if _is_whole(registry_dir) else None


def install(
    lock: JarLock,
    *,
    cache_dir: Path,
    find_sources: Callable[[], JarSources],
    report: Callable[[str], None],
    console: Console | None = None,
    cancelled: Event | None = None,
) -> Installation:
    """Make sure everything in ``lock`` is installed, downloading what is missing.

    Two processes may do this at once: the second waits for the first and finds the work done.

    Args:
        lock: What to install.
        cache_dir: The user's cache.
        find_sources: Asked only when something is missing.
        report: Receives progress lines.
        console: Where to draw bars, if it is a terminal.
        cancelled: Ends the work early once set.

    Raises:
        RetryError: If something could not be downloaded. Complete files stay, partial ones go.
    """
    if (installation := find_installation(lock, cache_dir=cache_dir)) is not None:
        return installation
    stop = cancelled or Event()
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        with _only_installer(cache_dir, report=report, cancelled=stop):
            if (installation := find_installation(lock, cache_dir=cache_dir)) is not None:
                return installation
            _sweep(cache_dir)
            _install_missing(
                lock,
                cache_dir=cache_dir,
                sources=find_sources(),
                report=report,
                console=console,
                cancelled=stop,
            )
    except OSError as error:
        raise RetryError(f"cannot install into {cache_dir}: {error}") from error
    installation = find_installation(lock, cache_dir=cache_dir)
    if installation is None:
        raise RetryError(f"what was installed in {cache_dir} did not stay there")
    return installation


def _install_missing(
    lock: JarLock,
    *,
    cache_dir: Path,
    sources: JarSources,
    report: Callable[[str], None],
    console: Console | None,
    cancelled: Event,
) -> None:
    jars = [
        a
        for a in sorted(lock.jars, key=lambda a: -a.size_bytes)
        if not _has_size(_jar_path(cache_dir, a), a.size_bytes)
    ]
    archive = lock.registry_archive
    totals = {_KAFKA_TITLE: sum(artifact.size_bytes for artifact in jars)} if jars else {}
    registry_dir = _registry_dir(cache_dir, archive)
    registry_missing = not _is_whole(registry_dir)
    if registry_missing:
        totals[_REGISTRY_TITLE] = archive.size_bytes

    with DownloadView(totals, report=report, console=console) as view:

        def fetch_jar(artifact: Artifact) -> None:
            fetch(
                artifact,
                _jar_path(cache_dir, artifact),
                sources=sources,
                received=lambda size: view.received(_KAFKA_TITLE, size),
                cancelled=cancelled,
            )

        def fetch_registry() -> None:
            packed = registry_dir.with_name(archive.file_name)
            try:
                fetch(
                    archive,
                    packed,
                    sources=sources,
                    received=lambda size: view.received(_REGISTRY_TITLE, size),
                    cancelled=cancelled,
                )
                _unpack(packed, registry_dir, cancelled=cancelled)
            finally:
                packed.unlink(missing_ok=True)

        with ThreadPoolExecutor(_THREADS, thread_name_prefix="install") as pool:
            # The archive first: it is the longest, and it has to be unpacked afterwards.
            tasks = [pool.submit(fetch_registry)] if registry_missing else []
            tasks += [pool.submit(fetch_jar, artifact) for artifact in jars]
            try:
                done, _ = wait(tasks, return_when=FIRST_EXCEPTION)
            except BaseException:
                cancelled.set()
                raise
            failed = [task for task in done if task.exception() is not None]
            if failed:
                pool.shutdown(wait=False, cancel_futures=True)
                cancelled.set()
    for task in failed:
        task.result()


def _unpack(packed: Path, target: Path, *, cancelled: Event) -> None:
    """Unpack a checked archive beside ``target`` and move it there when it is whole.

    Raises:
        RetryError: If the archive holds anything but files and folders below its own root, or
            cannot be read.
    """
    folder = Path(mkdtemp(dir=target.parent, prefix=f".{target.name}.", suffix=_UNPACKING_SUFFIX))
    try:
        manifest = _extract(packed, folder, cancelled=cancelled)
        (folder / _MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
        folder.chmod(0o755)
        if target.exists():
            shutil.rmtree(target)
        folder.rename(target)
    except (tarfile.TarError, EOFError) as error:
        raise RetryError(f"cannot unpack {packed.name}: {error}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _extract(packed: Path, folder: Path, *, cancelled: Event) -> dict[str, int]:
    manifest: dict[str, int] = {}
    with tarfile.open(packed, "r:gz") as archive:
        for member in archive:
            if cancelled.is_set():
                raise DownloadCancelledError(f"unpacking {packed.name} was cancelled")
            name = PurePosixPath(member.name)
            if name.is_absolute() or ".." in name.parts or not (member.isdir() or member.isfile()):
                raise RetryError(f"{packed.name} holds an unexpected entry: {member.name!r}")
            content = archive.extractfile(member)
            if content is None:
                (folder / name).mkdir(parents=True, exist_ok=True)
                continue
            with content:
                path = folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("wb") as file:
                    shutil.copyfileobj(content, file, length=256 * 1024)
            set_locked_time(path)
            manifest[str(name)] = member.size
    return manifest


def _is_whole(registry_dir: Path) -> bool:
    try:
        manifest = json.loads((registry_dir / _MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return all(_has_size(registry_dir / name, size) for name, size in manifest.items())


def _has_size(path: Path, size_bytes: int) -> bool:
    try:
        return path.stat().st_size == size_bytes
    except OSError:
        return False


def _jar_path(cache_dir: Path, artifact: Artifact) -> Path:
    return cache_dir / "jars" / artifact.sha256[:16] / artifact.file_name


def _registry_dir(cache_dir: Path, archive: Artifact) -> Path:
    return cache_dir / "registry" / f"{archive.version}-{archive.sha256[:16]}"


def _sweep(cache_dir: Path) -> None:
    """Remove what an installer that was killed had begun; the lock says that none is running."""
    for part in cache_dir.glob(f"jars/*/.*{PART_SUFFIX}"):
        part.unlink(missing_ok=True)
    for part in cache_dir.glob(f"registry/.*{PART_SUFFIX}"):
        part.unlink(missing_ok=True)
    for folder in cache_dir.glob(f"registry/.*{_UNPACKING_SUFFIX}"):
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _only_installer(
    cache_dir: Path, *, report: Callable[[str], None], cancelled: Event
) -> Iterator[None]:
    path = cache_dir / "install.lock"
    lock = FileLock.try_acquire(path)
    if lock is None:
        report("another k2 is downloading the same files; waiting for it")
    while lock is None:
        if cancelled.wait(_LOCK_POLL_EVERY_S):
            raise DownloadCancelledError("waiting for another download was cancelled")
        lock = FileLock.try_acquire(path)
    try:
        yield
    finally:
        lock.release()
