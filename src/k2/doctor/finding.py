"""PURE: what one look found, and what to do about it."""

from collections.abc import Mapping, Sequence
from enum import Enum

import msgspec


class Level(Enum):
    """How bad it is; the exit code is 1 when anything is ``FAIL``."""

    OK = "ok"
    WARN = "warn"
    """k2 runs, with less than it could have."""
    FAIL = "fail"
    """k2 does not start, stands still or loses what it promised, now or at the next fault."""


class Finding(msgspec.Struct, frozen=True):
    """One line of the answer."""

    check: str
    """What was looked at."""
    level: Level
    seen: str
    fix: str = ""
    """A command or a setting; empty when all is well."""


class Unseen(msgspec.Struct, frozen=True):
    """A look that showed nothing, and why."""

    reason: str


def ok(check: str, seen: str) -> Finding:
    """Return a finding that needs nothing."""
    return Finding(check, Level.OK, seen)


def warn(check: str, seen: str, *, fix: str) -> Finding:
    """Return a finding to act on when there is time."""
    return Finding(check, Level.WARN, seen, fix)


def fail(check: str, seen: str, *, fix: str) -> Finding:
    """Return a finding to act on now."""
    return Finding(check, Level.FAIL, seen, fix)


def worst(findings: Sequence[Finding]) -> Level:
    """Return the worst level among them."""
    for level in (Level.FAIL, Level.WARN):
        if any(one.level is level for one in findings):
            return level
    return Level.OK


def with_spares(by_address: Mapping[str, Sequence[Finding]]) -> dict[str, list[Finding]]:
    """Take what failed at one of several addresses as a warning where another one is fine.

    Args:
        by_address: Findings at each of the addresses that can stand in for one another.
    """
    fine = [address for address, found in by_address.items() if worst(found) is not Level.FAIL]
    if not fine:
        return {address: list(found) for address, found in by_address.items()}
    return {
        address: [
            warn(one.check, f"{one.seen} ({fine[0]} works)", fix=one.fix)
            if one.level is Level.FAIL
            else one
            for one in found
        ]
        for address, found in by_address.items()
    }


def merged(concern: str, by_name: Mapping[str, Finding]) -> list[Finding]:
    """Return one line for all names of which the same is true, the worst first.

    Args:
        concern: What was looked at, such as ``replication``.
        by_name: The finding of each topic; its own ``check`` is not used.
    """
    names: dict[tuple[Level, str, str], list[str]] = {}
    for name, one in by_name.items():
        names.setdefault((one.level, one.seen, one.fix), []).append(name)
    order = list(Level)
    return [
        Finding(concern, level, f"{seen}: {', '.join(same)}", fix)
        for (level, seen, fix), same in sorted(
            names.items(), key=lambda item: order.index(item[0][0]), reverse=True
        )
    ]


def duration_text(duration_s: float) -> str:
    """Return a duration as people say it: ``34 ms``, ``1.2 s``, ``15 min``, ``7 days``."""
    for limit_s, unit_s, unit in (
        (1, 0.001, "ms"),
        (100, 1, "s"),
        (100 * 60, 60, "min"),
        (48 * 3600, 3600, "h"),
    ):
        if abs(duration_s) < limit_s:
            number = duration_s / unit_s
            return f"{number:.1f} {unit}" if 0 < abs(number) < 10 else f"{number:.0f} {unit}"
    return f"{duration_s / 86_400:.0f} days"
