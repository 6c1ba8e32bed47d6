import io
import multiprocessing
import ssl
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.synchronize import Barrier
from pathlib import Path
from threading import Event, Lock, Thread

import pytest

from k2.errors import RetryError
from k2.local import jars
from k2.local.download import fetch
from k2.local.file_lock import FileLock
from k2.local.jar_lock import Artifact, JarLock
from k2.local.jar_sources import JarSources
from k2.local.jars import Installation, find_installation, install


@dataclass
class Repository:
    """A Maven repository on loopback that counts what it is asked for."""

    address: str = ""
    content: dict[str, bytes] = field(default_factory=dict)
    status: dict[str, int] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    lock: Lock = field(default_factory=Lock)
    cut_after: dict[str, int] = field(default_factory=dict)

    def put(self, content: bytes, *, name: str, kind: str = "jar") -> Artifact:
        artifact = Artifact(
            group="org.example",
            name=name,
            version="1.0",
            classifier="",
            type=kind,
            sha256=sha256(content).hexdigest(),
            size_bytes=len(content),
        )
        self.content[f"/{artifact.repository_path}"] = content
        return artifact


@contextmanager
def serve(repository: Repository) -> Iterator[Repository]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with repository.lock:
                repository.requests.append(self.path)
            status = repository.status.get(
                self.path, 200 if self.path in repository.content else 404
            )
            content = repository.content.get(self.path, b"") if status == 200 else b""
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: repository.cut_after.get(self.path, len(content))])

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (its name)
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            pass  # a client that hangs up is what some tests are about

    server = Server(("127.0.0.1", 0), Handler)
    repository.address = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield repository
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def repository(monkeypatch: pytest.MonkeyPatch) -> Iterator[Repository]:
    # A proxy of the machine is not for an address on loopback.
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serve(Repository()) as running:
        yield running


def archive(entries: dict[str, bytes], *, link: str | None = None) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, content in entries.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        if link is not None:
            member = tarfile.TarInfo("link")
            member.type = tarfile.SYMTYPE
            member.linkname = link
            tar.addfile(member)
    return packed.getvalue()


def lock_of(repository: Repository, *, registry: bytes | None = None) -> JarLock:
    packed = (
        archive({"quarkus-run.jar": b"run", "lib/a.jar": b"a"}) if registry is None else registry
    )
    return JarLock(
        (
            repository.put(b"kafka" * 100_000, name="kafka_2.13"),
            repository.put(b"clients" * 1000, name="kafka-clients"),
            repository.put(packed, name="registry", kind="tar.gz"),
        )
    )


def sources_of(*addresses: str, local: Path = Path("/nowhere")) -> JarSources:
    return JarSources(local, addresses, ssl.create_default_context())


def install_from(
    lock: JarLock, cache: Path, *addresses: str, local: Path = Path("/nowhere")
) -> Installation:
    return install(
        lock,
        cache_dir=cache,
        find_sources=lambda: sources_of(*addresses, local=local),
        report=lambda _: None,
    )


def unfinished(cache: Path) -> list[Path]:
    return [p for p in cache.rglob("*") if p.name.startswith(".") or p.suffix == ".gz"]


def test_everything_is_installed_once_and_found_again(
    tmp_path: Path, repository: Repository
) -> None:
    lock = lock_of(repository)

    first = install_from(lock, tmp_path, repository.address)
    asked = len(repository.requests)
    again = install_from(lock, tmp_path)

    assert first == again
    assert asked == len(repository.requests) == 3
    assert list(first.class_path) == sorted(first.class_path)
    assert {jar.read_bytes() for jar in first.class_path} == {b"kafka" * 100_000, b"clients" * 1000}
    assert (first.registry_dir / "lib" / "a.jar").read_bytes() == b"a"
    assert unfinished(tmp_path) == []


def test_a_jar_installed_again_has_the_time_the_aot_cache_knows(
    tmp_path: Path, repository: Repository
) -> None:
    lock = lock_of(repository)
    jar = install_from(lock, tmp_path, repository.address).class_path[0]
    before_s = jar.stat().st_mtime
    jar.write_bytes(b"damaged")

    install_from(lock, tmp_path, repository.address)

    assert jar.stat().st_mtime == before_s


def test_the_users_own_repository_is_preferred_when_its_content_is_right(
    tmp_path: Path, repository: Repository
) -> None:
    lock = lock_of(repository)
    local = tmp_path / "m2"
    for artifact, content in (
        (lock.jars[0], repository.content[f"/{lock.jars[0].repository_path}"]),
        (lock.jars[1], b"other !" * 1000),
    ):
        path = local / artifact.repository_path
        path.parent.mkdir(parents=True)
        path.write_bytes(content)

    install_from(lock, tmp_path / "cache", repository.address, local=local)

    assert f"/{lock.jars[0].repository_path}" not in repository.requests
    assert f"/{lock.jars[1].repository_path}" in repository.requests


def test_the_next_address_serves_what_the_mirror_lacks(
    tmp_path: Path, repository: Repository
) -> None:
    lock = lock_of(repository)
    with serve(Repository()) as empty_mirror:
        install_from(lock, tmp_path, empty_mirror.address, repository.address)

    assert len(empty_mirror.requests) == 3


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda content: content[:-1] + b"?", "sha256"),
        (lambda content: content + b"more", "more than"),
        (lambda content: content[:-10], "ended after"),
    ],
)
def test_wrong_content_is_refused_and_removed(
    tmp_path: Path,
    repository: Repository,
    damage: Callable[[bytes], bytes],
    complaint: str,
) -> None:
    artifact = repository.put(b"kafka" * 100_000, name="kafka_2.13")
    path = f"/{artifact.repository_path}"
    repository.content[path] = damage(repository.content[path])

    with pytest.raises(RetryError, match=complaint):
        fetch_quickly(artifact, tmp_path / "kafka.jar", repository.address)

    assert list(tmp_path.iterdir()) == []


def test_a_connection_cut_in_the_middle_leaves_nothing_and_counts_back(
    tmp_path: Path, repository: Repository
) -> None:
    artifact = repository.put(b"kafka" * 100_000, name="kafka_2.13")
    repository.cut_after[f"/{artifact.repository_path}"] = 300_000
    received: list[int] = []

    with pytest.raises(RetryError, match="ended after 300000 of 500000 bytes"):
        fetch_quickly(artifact, tmp_path / "kafka.jar", repository.address, received=received)

    assert list(tmp_path.iterdir()) == []
    assert sum(received) == 0
    assert len(repository.requests) == 2


def test_an_absent_file_is_asked_for_once_and_named(tmp_path: Path, repository: Repository) -> None:
    artifact = replace(repository.put(b"x", name="kafka_2.13"), name="gone")

    with pytest.raises(RetryError, match=r"org\.example:gone:1\.0 .*HTTP 404"):
        fetch_quickly(artifact, tmp_path / "gone.jar", repository.address)

    assert len(repository.requests) == 1


def test_nobody_listening_is_a_retry_error(tmp_path: Path, repository: Repository) -> None:
    artifact = repository.put(b"x", name="kafka_2.13")
    with serve(Repository()) as gone:
        pass

    with pytest.raises(RetryError, match="refused"):
        fetch_quickly(artifact, tmp_path / "x.jar", gone.address)


def test_a_cancelled_download_ends_and_leaves_nothing(
    tmp_path: Path, repository: Repository
) -> None:
    artifact = repository.put(b"kafka" * 1_000_000, name="kafka_2.13")
    cancelled = Event()

    with pytest.raises(RetryError, match="cancelled"):
        fetch(
            artifact,
            tmp_path / "kafka.jar",
            sources=sources_of(repository.address),
            received=lambda _: cancelled.set(),
            cancelled=cancelled,
        )

    assert list(tmp_path.iterdir()) == []


def test_one_failed_file_fails_the_installation_and_the_rest_stays(
    tmp_path: Path, repository: Repository
) -> None:
    lock = lock_of(repository)
    repository.status[f"/{lock.jars[1].repository_path}"] = 403

    with pytest.raises(RetryError, match="kafka-clients"):
        install_from(lock, tmp_path, repository.address)

    assert find_installation(lock, cache_dir=tmp_path) is None
    assert unfinished(tmp_path) == []
    repository.status.clear()
    assert install_from(lock, tmp_path, repository.address).class_path


@pytest.mark.parametrize(
    "packed",
    [
        archive({"../escaped": b"x"}),
        archive({"/etc/escaped": b"x"}),
        archive({"run.jar": b"x"}, link="/etc/passwd"),
        b"no archive at all",
        archive({"run.jar": bytes(100_000)})[:-30],
    ],
)
def test_an_archive_that_reaches_out_or_is_damaged_is_refused(
    tmp_path: Path, repository: Repository, packed: bytes
) -> None:
    lock = lock_of(repository, registry=packed)

    with pytest.raises(RetryError, match=r"registry-1\.0\.tar\.gz"):
        install_from(lock, tmp_path / "cache", repository.address)

    assert list(tmp_path.rglob("escaped")) == []
    assert unfinished(tmp_path) == []


def test_a_registry_that_lost_a_file_is_installed_again(
    tmp_path: Path, repository: Repository
) -> None:
    lock = lock_of(repository)
    lost = install_from(lock, tmp_path, repository.address).registry_dir / "lib" / "a.jar"
    lost.unlink()

    install_from(lock, tmp_path, repository.address)

    assert lost.read_bytes() == b"a"


def test_what_a_killed_installer_began_is_swept(tmp_path: Path, repository: Repository) -> None:
    lock = lock_of(repository)
    for name in ("jars/abc/.kafka.jar.x.part", "registry/.r.tar.gz.x.part"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half")
    (tmp_path / "registry" / ".1.0.x.unpacking").mkdir()

    install_from(lock, tmp_path, repository.address)

    assert unfinished(tmp_path) == []


def test_two_processes_download_each_file_once(tmp_path: Path, repository: Repository) -> None:
    lock = lock_of(repository)
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(2)
    workers = [
        context.Process(
            target=_install_together, args=(barrier, lock, tmp_path, repository.address)
        )
        for _ in range(2)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(30)

    assert [worker.exitcode for worker in workers] == [0, 0]
    assert len(repository.requests) == 3
    assert find_installation(lock, cache_dir=tmp_path) is not None


def test_waiting_for_another_installer_is_said_and_can_be_cancelled(
    tmp_path: Path, repository: Repository
) -> None:
    lock = lock_of(repository)
    said: list[str] = []
    cancelled = Event()
    held = FileLock.try_acquire(tmp_path / "install.lock")
    assert held is not None

    def report(line: str) -> None:
        said.append(line)
        cancelled.set()

    with pytest.raises(RetryError, match="cancelled"):
        install(
            lock,
            cache_dir=tmp_path,
            find_sources=lambda: sources_of(repository.address),
            report=report,
            cancelled=cancelled,
        )
    held.release()

    assert said == ["another k2 is downloading the same files; waiting for it"]
    assert repository.requests == []


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, repository: Repository) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")

    with pytest.raises(RetryError, match=str(blocked)):
        install_from(lock_of(repository), blocked / "cache", repository.address)


def test_progress_is_said_in_lines_without_a_terminal(
    tmp_path: Path, repository: Repository
) -> None:
    said: list[str] = []

    install(
        lock_of(repository),
        cache_dir=tmp_path,
        find_sources=lambda: sources_of(repository.address),
        report=said.append,
    )

    assert said[0].startswith("downloading Kafka 0 of 1 MB, schema registry 0 of 0 MB")


def fetch_quickly(
    artifact: Artifact, target: Path, address: str, *, received: list[int] | None = None
) -> None:
    counts: list[int] = [] if received is None else received
    fetch(
        artifact,
        target,
        sources=sources_of(address),
        received=counts.append,
        cancelled=Event(),
        attempts=2,
        retry_delay_s=0.0,
    )


def _install_together(barrier: Barrier, lock: JarLock, cache: Path, address: str) -> None:
    barrier.wait(10)
    assert jars.install(
        lock,
        cache_dir=cache,
        find_sources=lambda: sources_of(address),
        report=lambda _: None,
    ).class_path
