"""The blocks of a runbook that show a command and what it prints, and whether that is still so.

A block is fenced as ``console id=NAME``. A line that begins with ``$`` is a command, lines with
``>`` right behind it go on with it, as a shell shows them. The lines after it are fragments of what
it prints, in this order: other lines may stand between them. ``…`` stands for anything within a
line, and any run of blanks for one.
"""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
RUNBOOKS = ROOT / "docs" / "operations" / "runbooks"

_BLOCK = re.compile(r"^ *```console id=([a-z0-9-]+)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Shown:
    """One command and fragments of its output."""

    command: str
    fragments: tuple[str, ...]

    def missing_in(self, output: str) -> str | None:
        """Return the first fragment that does not come in its turn; None when all do."""
        lines = iter([" ".join(line.split()) for line in output.splitlines()])
        for fragment in self.fragments:
            pattern = _pattern(fragment)
            if not any(pattern.fullmatch(line) for line in lines):
                return fragment
        return None


def blocks_of(text: str) -> dict[str, list[Shown]]:
    """Return the shown commands of a document, by the block's id."""
    found: dict[str, list[Shown]] = {}
    for name, body in _BLOCK.findall(text):
        if name in found:
            raise ValueError(f"two blocks are called {name}")
        found[name] = _commands(body)
    return found


@cache
def all_blocks() -> dict[str, list[Shown]]:
    """Return the shown commands of all runbooks."""
    found: dict[str, list[Shown]] = {}
    for path in sorted(RUNBOOKS.glob("*.md")):
        for name, shown in blocks_of(path.read_text("utf-8")).items():
            if name in found:
                raise ValueError(f"{path.name}: another runbook has a block called {name}")
            found[name] = shown
    return found


def _commands(body: str) -> list[Shown]:
    found: list[tuple[str, list[str]]] = []
    for line in (raw.strip() for raw in body.splitlines()):
        if line.startswith("$ "):
            found.append((line[2:], []))
        elif line.startswith("> ") and not found[-1][1]:
            found[-1] = (f"{found[-1][0]}\n{line[2:]}", [])
        elif line and line != "…":
            found[-1][1].append(line)
    return [Shown(command, tuple(fragments)) for command, fragments in found]


def _pattern(fragment: str) -> re.Pattern[str]:
    parts = [re.escape(part) for part in " ".join(fragment.split()).split("…")]
    return re.compile(".*".join(parts))
