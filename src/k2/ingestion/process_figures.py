"""What every k2 service says of its own process: which build it is, and its memory."""

import os
import platform
from pathlib import Path

from k2 import __version__
from k2.observability import metrics
from k2.observability.memory import MemoryWatch

UNKNOWN = "unknown"


def revision(start: Path) -> str:
    """Return the commit this code is of: ``K2_REVISION`` (images set it), or the checkout's own."""
    if given := os.environ.get("K2_REVISION"):
        return given
    for folder in start.resolve().parents:
        head = folder / ".git" / "HEAD"
        if head.is_file():
            return _commit(folder / ".git", head.read_text(encoding="utf-8").strip())
    return UNKNOWN


def show_build(color: str) -> None:
    """Put ``k2_build_info`` on the metrics page; ``color`` is blue, green or empty."""
    labels = (__version__, revision(Path(__file__))[:12], color, platform.python_version())
    metrics.build_info.labels(*labels).set(1)


def show_memory(memory: MemoryWatch) -> None:
    """Put what the process uses on the metrics page."""
    use = memory.use()
    metrics.memory_rss.set(use.rss_bytes)
    metrics.memory_vms.set(use.vms_bytes)
    metrics.leak_score.set(memory.leak_score)


def _commit(git: Path, head: str) -> str:
    name = head.removeprefix("ref: ")
    if name == head:
        return head
    try:
        return (git / name).read_text(encoding="utf-8").strip()
    except OSError:
        pass
    try:
        packed = (git / "packed-refs").read_text(encoding="utf-8")
    except OSError:
        return UNKNOWN
    found = (line.split(" ")[0] for line in packed.splitlines() if line.endswith(f" {name}"))
    return next(found, UNKNOWN)
