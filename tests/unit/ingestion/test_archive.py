import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from pyiceberg.utils.concurrent import ExecutorFactory

from k2.errors import RetryError
from k2.ingestion import archive
from k2.ingestion.supervision import ExitCode
from k2.settings import Settings


class FakeTopic:
    def __init__(self, name: str, told: list[str], *, taken: bool) -> None:
        self.name, self.told, self.taken = name, told, taken

    def flush(self) -> bool:
        self.told.append(self.name)
        return self.taken

    def poll(self, _timeout_s: float) -> int:
        self.told.append(self.name)
        return 1

    def show_age(self) -> None: ...

    def close(self) -> None:
        self.told.append(f"{self.name} closed")

    def finish(self) -> bool:
        self.told.append(f"the last of {self.name}")
        return self.taken


NAMES = ("gaps", "trades", "repairs")


@pytest.mark.parametrize("refused", ["gaps", "trades", "repairs"])
def test_what_follows_waits_while_what_is_before_it_cannot_be_written(refused: str) -> None:
    told: list[str] = []
    topics: Any = [FakeTopic(name, told, taken=name != refused) for name in NAMES]
    archive._flush(topics)
    assert told == list(NAMES[: NAMES.index(refused) + 1])


@pytest.mark.parametrize("refused", ["gaps", "trades", "repairs", "none"])
def test_a_drain_says_whether_the_tables_took_the_last_of_it(
    refused: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "DRAIN_DEADLINE_S", 0.0)
    told: list[str] = []
    topics: Any = [FakeTopic(name, told, taken=name != refused) for name in NAMES]
    assert archive._drain(topics) is (refused == "none")
    reached = NAMES.index(refused) + 1 if refused != "none" else len(NAMES)
    assert told == [f"the last of {name}" for name in NAMES[:reached]]


def test_gaps_are_polled_last_so_that_no_declaration_is_behind_what_it_explains() -> None:
    told: list[str] = []
    topics: Any = [FakeTopic(name, told, taken=True) for name in NAMES]
    assert archive._poll(topics) == 3
    assert told == ["repairs", "trades", "gaps"]


class Letters:
    """Dead letters that say when they were closed."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def close(self) -> None:
        self.told.append("dead letters closed")


def _away(*_args: Any) -> Any:
    raise RetryError("nobody answers")


@pytest.fixture
def letters(monkeypatch: pytest.MonkeyPatch) -> Letters:
    """Return the dead letters of an archive that reaches no Kafka."""

    async def status(*_args: Any) -> Any:
        return None

    monkeypatch.setenv("PYICEBERG_MAX_WORKERS", "")
    monkeypatch.delenv("PYICEBERG_MAX_WORKERS")
    letters = Letters()
    monkeypatch.setattr(archive, "KafkaAdmin", lambda _access: None)
    monkeypatch.setattr(archive, "_status", status)
    monkeypatch.setattr(archive, "topic_facts", _away)
    monkeypatch.setattr(archive, "open_dead_letters", lambda *_args, **_how: letters)
    return letters


async def _run(*, fail_fast: bool = False) -> ExitCode:
    settings = Settings(archive_metrics_port=0, archive_health_port=0)
    return await archive._run(settings, from_first=False, fail_fast=fail_fast)


def test_an_archive_stopped_while_it_prepares_leaves_nothing_open(
    letters: Letters, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def until_it_works(*_args: Any, **_how: Any) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            for _ in range(10):  # letting go takes a while
                await asyncio.sleep(0)
            letters.told.append("preparing ended")

    async def story() -> ExitCode:
        stop = asyncio.Event()
        monkeypatch.setattr(archive, "stop_on_signals", lambda: stop)
        asyncio.get_running_loop().call_soon(stop.set)
        return await _run()

    monkeypatch.setattr(archive, "until_it_works", until_it_works)
    assert asyncio.run(story()) is ExitCode.CLEAN
    assert letters.told == ["preparing ended", "dead letters closed"]


def test_an_archive_that_does_not_wait_for_kafka_closes_its_dead_letters(
    letters: Letters, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "stop_on_signals", asyncio.Event)
    assert asyncio.run(_run(fail_fast=True)) is ExitCode.DEPENDENCY_UNAVAILABLE
    assert letters.told == ["dead letters closed"]


def test_an_archive_commits_on_one_thread(
    letters: Letters, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "stop_on_signals", asyncio.Event)
    asyncio.run(_run(fail_fast=True))
    assert ExecutorFactory.max_workers() == 1, "what each thread's memory grew to is kept"
    monkeypatch.setenv("PYICEBERG_MAX_WORKERS", "3")
    asyncio.run(_run(fail_fast=True))
    assert ExecutorFactory.max_workers() == 3, "the operator's choice"
    assert letters.told


@pytest.mark.parametrize(
    ("taken", "code"), [(True, ExitCode.CLEAN), (False, ExitCode.DRAINED_INCOMPLETELY)]
)
def test_an_archive_whose_last_batch_the_lake_refused_says_so_by_its_exit_code(
    letters: Letters, monkeypatch: pytest.MonkeyPatch, *, taken: bool, code: ExitCode
) -> None:
    stop = asyncio.Event()

    async def status(*_args: Any) -> Any:
        return SimpleNamespace()

    async def until_it_works(*_args: Any, **_how: Any) -> Any:
        stop.set()
        return [FakeTopic("t", letters.told, taken=taken)]

    monkeypatch.setattr(archive, "_status", status)
    monkeypatch.setattr(archive, "until_it_works", until_it_works)
    monkeypatch.setattr(archive, "stop_on_signals", lambda: stop)
    monkeypatch.setattr(archive, "DRAIN_DEADLINE_S", 0.0)
    assert asyncio.run(_run()) is code
    assert letters.told == ["the last of t", "t closed", "dead letters closed"]
