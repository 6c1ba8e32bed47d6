"""PURE: whether this machine has room for what k2 writes and opens."""

import msgspec

from k2.doctor.finding import Finding, Unseen, fail, ok, warn

FREE_FAIL_BYTES = 1 << 30
"""A spill file may take a quarter of it, a table commit and Kafka's segments the rest."""
FREE_WARN_BYTES = 10 << 30

OPEN_FILES_FAIL = 256
"""Legs, REST, Kafka's connections, a spill file per symbol and the lake's files of one commit."""
OPEN_FILES_WARN = 1024

_GIB = 1 << 30


class Folder(msgspec.Struct, frozen=True, kw_only=True):
    """The file system a folder is, or will be, on."""

    path: str
    free_bytes: int
    total_bytes: int
    writable: bool


def judge_folder(seen: Folder | Unseen, *, use: str, setting: str) -> Finding:
    """Judge the room for one kind of file.

    Args:
        seen: The file system.
        use: What is kept there, such as ``dead letters``.
        setting: The variable that names the folder.
    """
    check = f"disk for {use}"
    if isinstance(seen, Unseen):
        return fail(check, seen.reason, fix=f"{setting}=a folder that can be made and written")
    text = f"{seen.path}: {seen.free_bytes / _GIB:.1f} of {seen.total_bytes / _GIB:.1f} GiB free"
    if not seen.writable:
        return fail(check, f"{seen.path} cannot be written", fix=f"change its owner, or {setting}")
    fix = f"free some (`du -xhd1 {seen.path}`), enlarge it, or move it with {setting}"
    if seen.free_bytes < FREE_FAIL_BYTES:
        return fail(check, text, fix=fix)
    if seen.free_bytes < FREE_WARN_BYTES:
        return warn(check, text, fix=fix)
    return ok(check, text)


def judge_open_files(limit: int) -> Finding:
    """Judge how many files a process started from here may open."""
    check = "open files"
    text = f"limit {limit}"
    fix = "`ulimit -n 4096` before the start; LimitNOFILE= in a unit, ulimits: in Compose"
    if limit < OPEN_FILES_FAIL:
        return fail(check, text, fix=fix)
    if limit < OPEN_FILES_WARN:
        return warn(check, text, fix=fix)
    return ok(check, text)
