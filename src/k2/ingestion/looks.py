"""Looks at what a service depends on, in the background: the answers wait in memory.

A look never runs on a thread that could be needed, and each has its own deadline: a dependency
that hangs costs its own look.
"""

import asyncio
from collections.abc import Awaitable, Callable
from http import HTTPStatus

import aiohttp
import msgspec
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from k2.errors import NOT_DECODABLE, RetryError
from k2.ingestion.health import ArchiveHealth, DependencyHealth, LakeHealth
from k2.ingestion.host import Host
from k2.kafka.admin import unreachable
from k2.kafka.registry import Registry

KAFKA_EVERY_S = 2.0
KAFKA_DEADLINE_S = 3.0
GROUPS_TOPIC = "__consumer_offsets"
"""Kafka's own: asking for it makes no topic of anybody's."""

REGISTRY_EVERY_S = 10.0
ARCHIVE_EVERY_S = 2.0
HTTP_DEADLINE_S = 1.5
ANSWER_MAX_BYTES = 1 << 20


class Dependency:
    """One dependency as of the last look."""

    def __init__(self, at: str, *, host: Host) -> None:
        """Name its address; nobody has looked yet."""
        self.at = at
        self.reachable: bool | None = None
        self.was_reachable = False
        self._problem = ""
        self._host = host
        self._since_s = host.monotonic_s()

    def saw(self, problem: str | None) -> None:
        """Take in a look: what was wrong, or None."""
        reachable = problem is None
        if reachable is not self.reachable:
            self._since_s = self._host.monotonic_s()
        self.reachable = reachable
        self.was_reachable = self.was_reachable or reachable
        self._problem = problem or ""

    @property
    def for_s(self) -> float:
        """How long it has been as it is."""
        return self._host.monotonic_s() - self._since_s

    def health(self) -> DependencyHealth:
        """Return what to say of it."""
        return DependencyHealth(self.at, self.reachable, round(self.for_s, 1), self._problem)


class Lake:
    """The archive as of the last look."""

    def __init__(self, port: int, *, host: Host) -> None:
        """Name its health port on this machine."""
        self.dependency = Dependency(f"http://127.0.0.1:{port}", host=host)
        self.archive: ArchiveHealth | None = None
        self._host = host
        self._seen_s = 0.0

    def saw(self, archive: ArchiveHealth | None, problem: str | None) -> None:
        """Take in a look."""
        self.archive = archive
        self._seen_s = self._host.monotonic_s()
        self.dependency.saw(problem)

    def health(self) -> LakeHealth:
        """Return what to say of it, its ages as of now."""
        seen = self.dependency.health()
        archive = self.archive
        if archive is not None:
            passed_s = self._host.monotonic_s() - self._seen_s
            tables = [
                msgspec.structs.replace(
                    table, last_commit_age_s=round(table.last_commit_age_s + passed_s, 1)
                )
                if table.last_commit_age_s is not None
                else table
                for table in archive.tables
            ]
            archive = msgspec.structs.replace(archive, tables=tables)
        answered = self.dependency.was_reachable
        return LakeHealth(seen.at, seen.reachable, answered, seen.for_s, archive)


async def watch_kafka(admin: AdminClient, kafka: Dependency) -> None:
    """Ask Kafka for a topic it always has, for ever.

    Not ``describe_cluster``: an answer of the library's admin requests that comes after their time
    was up ends the process (`rd_kafka_admin_response_parse: Assertion`, seen once; librdkafka issue
    4605 is of that kind).
    """

    async def look() -> None:
        try:
            await asyncio.to_thread(admin.list_topics, topic=GROUPS_TOPIC, timeout=KAFKA_DEADLINE_S)
        except KafkaException as exc:
            kafka.saw(unreachable(admin, exc))
        else:
            kafka.saw(None)

    await _again_and_again(look, every_s=KAFKA_EVERY_S)


async def watch_registry(registry: Registry, seen: Dependency) -> None:
    """Ask the registry for anything, for ever: unless it refuses us, it is there."""
    # Reading the certificates takes tens of milliseconds.
    tls = await asyncio.to_thread(registry.tls) or True
    async with _session() as session:

        async def look() -> None:
            try:
                async with session.get(
                    f"{registry.url}/subjects",
                    headers=registry.login(),
                    ssl=tls,
                    allow_redirects=False,
                ) as reply:
                    seen.saw(_refusal(reply.status))
            except (aiohttp.ClientError, OSError) as exc:
                seen.saw(_why(exc))
            except RetryError as exc:
                seen.saw(str(exc))

        await _again_and_again(look, every_s=REGISTRY_EVERY_S)


async def watch_archive(lake: Lake) -> None:
    """Ask the archive how it is, for ever."""
    async with _session() as session:

        async def look() -> None:
            try:
                async with session.get(
                    f"{lake.dependency.at}/health", allow_redirects=False
                ) as reply:
                    body = await _body(reply)
                lake.saw(msgspec.json.decode(body, type=ArchiveHealth), None)
            except (aiohttp.ClientError, OSError) as exc:
                lake.saw(None, _why(exc))
            except NOT_DECODABLE as exc:
                lake.saw(None, f"somebody else answers: {exc}")

        await _again_and_again(look, every_s=ARCHIVE_EVERY_S)


async def _body(reply: aiohttp.ClientResponse) -> bytes:
    """Return an answer, cut off where it is longer than any of ours."""
    body = b""
    async for chunk in reply.content.iter_any():
        body += chunk
        if len(body) > ANSWER_MAX_BYTES:
            break
    return body


def _refusal(status: int) -> str | None:
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return f"HTTP {status}: the login is refused"
    return f"HTTP {status}" if status >= 500 else None


def _session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=HTTP_DEADLINE_S))


def _why(exc: Exception) -> str:
    return "no answer" if isinstance(exc, TimeoutError) else "cannot be reached"


async def _again_and_again(look: Callable[[], Awaitable[None]], *, every_s: float) -> None:
    while True:
        await look()
        await asyncio.sleep(every_s)
