"""Run checks side by side, each on a thread of its own and for so long only."""

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec

from k2.doctor.finding import Finding, Level, fail, with_spares
from k2.errors import K2Error


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One look at one thing; what it yields before its deadline counts."""

    subject: str
    """What ``k2 doctor SUBJECT`` asks for."""
    name: str
    deadline_s: float
    look: Callable[[], Iterable[Finding]]
    spares: str = ""
    """Checks that share this word can stand in for one another: one that works is enough."""


class Line(msgspec.Struct, frozen=True):
    """One line of the answer."""

    subject: str
    check: str
    level: Level
    seen: str
    fix: str


def examine(checks: Sequence[Check], *, waiting: Callable[[Sequence[Check]], None]) -> list[Line]:
    """Run all checks; return their lines in the order of the checks.

    The threads are daemons: one that hangs in a library does not keep the process.

    Args:
        checks: What to run.
        waiting: Called with the checks that still run, whenever one has ended.
    """
    said: queue.SimpleQueue[tuple[int, Finding | None]] = queue.SimpleQueue()
    found: dict[int, list[Finding]] = {number: [] for number in range(len(checks))}
    began_s = time.monotonic()
    for number, check in enumerate(checks):
        threading.Thread(
            target=_look, args=(number, check, said), name=f"doctor-{check.name}", daemon=True
        ).start()
    running = dict(enumerate(checks))
    while running:
        waiting(list(running.values()))
        for number in [n for n, check in running.items() if _left_s(check, began_s) <= 0]:
            check = running.pop(number)
            found[number].append(_hung(check))
        if not running:
            break
        try:
            next_end_s = min(_left_s(check, began_s) for check in running.values())
            number, finding = said.get(timeout=max(0.0, next_end_s))
        except queue.Empty:
            continue
        if number not in running:
            continue  # it hung, and that was said
        if finding is None:
            del running[number]
        else:
            found[number].append(finding)
    return list(_lines(checks, found))


def _look(number: int, check: Check, said: "queue.SimpleQueue[tuple[int, Finding | None]]") -> None:
    try:
        for finding in check.look():
            said.put((number, finding))
    except K2Error as exc:
        said.put((number, fail(check.name, str(exc), fix="see the message")))
    except Exception as exc:  # noqa: BLE001 - a bug of one check costs its line, not the others
        problem = f"this check itself broke: {type(exc).__name__}: {exc}"
        said.put((number, fail(check.name, problem, fix="report it; the other lines hold")))
    said.put((number, None))


def _hung(check: Check) -> Finding:
    return fail(
        check.name,
        f"no answer within {check.deadline_s:g} s, what is above this line apart",
        fix="something takes connections, or questions, and does not answer: restart it, "
        "look at firewalls on the way",
    )


def _left_s(check: Check, began_s: float) -> float:
    return began_s + check.deadline_s - time.monotonic()


def _lines(checks: Sequence[Check], found: dict[int, list[Finding]]) -> Iterator[Line]:
    """Take the failures of an address for warnings where a spare works."""
    groups: dict[str, dict[str, list[Finding]]] = {}
    for number, check in enumerate(checks):
        groups.setdefault(check.spares or f"#{number}", {})[check.name] = found[number]
    judged = {spares: with_spares(by_name) for spares, by_name in groups.items()}
    for number, check in enumerate(checks):
        for one in judged[check.spares or f"#{number}"][check.name]:
            yield Line(check.subject, one.check, one.level, one.seen, one.fix)
