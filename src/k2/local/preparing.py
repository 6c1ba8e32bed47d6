"""What the embedded stack starts from, downloaded and trained once: jars and AOT caches."""

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from rich.console import Console

from k2.local.aot import train_missing
from k2.local.broker import broker_program
from k2.local.exercises import broker_exercise, registry_exercise
from k2.local.jar_lock import JarLock
from k2.local.jar_sources import cache_dir, find_sources
from k2.local.jars import Installation, install, read_lock
from k2.local.registry import registry_program


@dataclass(frozen=True)
class Prepared:
    """Everything the two processes start from: jars, and AOT caches where training worked."""

    installation: Installation
    kafka_version: str
    cache_dir: Path


async def prepare(*, report: Callable[[str], None], console: Console | None = None) -> Prepared:
    """Download and train what is missing; milliseconds when nothing is.

    Raises:
        RetryError: If a download failed.
    """
    lock, cache = read_lock(), cache_dir(os.environ)
    cancelled = Event()
    try:
        installation = await asyncio.to_thread(
            install,
            lock,
            cache_dir=cache,
            find_sources=lambda: find_sources(os.environ),
            report=report,
            console=console,
            cancelled=cancelled,
        )
    finally:
        # When we are cancelled the thread must not go on downloading.
        cancelled.set()
    kafka_version = _kafka_version(lock)
    await train_missing(
        [
            broker_exercise(broker_program(installation), kafka_version=kafka_version),
            registry_exercise(registry_program(installation)),
        ],
        cache_dir=cache,
        report=report,
    )
    return Prepared(installation, kafka_version, cache)


def _kafka_version(lock: JarLock) -> str:
    return next(a.version for a in lock.jars if a.name.startswith("kafka_"))
