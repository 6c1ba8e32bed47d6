"""PURE: what the schema registry holds and allows."""

import msgspec

from k2.doctor.finding import Finding, Unseen, fail, ok, warn

FREE_LEVELS = ("NONE",)


class SubjectSeen(msgspec.Struct, frozen=True, kw_only=True):
    """One subject, compared with the schema this version writes."""

    subject: str
    version: int | None = None
    """None when nothing is registered."""
    same: bool = False
    compatible: bool = True
    level: str = ""
    """Compatibility asked of a new version; empty where the registry does not tell."""
    mode: str = ""
    """``READWRITE``, ``READONLY`` ...; empty where the registry does not tell."""


def judge_subject(seen: SubjectSeen | Unseen) -> list[Finding]:
    """Judge whether k2 can register, and readers can read what it writes."""
    if isinstance(seen, Unseen):
        return [
            fail(
                "registry",
                seen.reason,
                fix="start it, or correct SCHEMA_REGISTRY_URL; running services go on without it, "
                "`k2 stream` does not start",
            )
        ]
    found = [_registered(seen)]
    if seen.level in FREE_LEVELS:
        found.append(
            warn(
                f"{seen.subject} compatibility",
                f"{seen.level}: a schema that breaks readers would be taken",
                fix=f"set BACKWARD or stricter: PUT /config/{seen.subject}",
            )
        )
    elif seen.level:
        found.append(ok(f"{seen.subject} compatibility", seen.level))
    return found


def _registered(seen: SubjectSeen) -> Finding:
    check = f"{seen.subject} schema"
    readonly = seen.mode.startswith("READONLY")
    if seen.version is None:
        if readonly:
            return fail(
                check,
                f"not registered, and the registry's mode is {seen.mode}: `k2 stream` cannot",
                fix='PUT /mode {"mode": "READWRITE"}, then start `k2 stream`',
            )
        return warn(check, "not registered yet", fix="`k2 stream` does it when it starts")
    if not seen.compatible:
        return fail(
            check,
            f"version {seen.version} cannot be followed by this k2's schema",
            fix="`k2 schema show` and `k2 schema check`: an older k2, or another program's subject",
        )
    text = f"version {seen.version}, " + (
        "the same as this k2's" if seen.same else "this k2's follows as the next version"
    )
    if readonly and not seen.same:
        return fail(
            check,
            f"{text}, but the registry's mode is {seen.mode}",
            fix='PUT /mode {"mode": "READWRITE"}',
        )
    return ok(check, text)
