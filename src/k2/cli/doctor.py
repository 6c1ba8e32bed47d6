"""``k2 doctor``: is everything there that k2 depends on, and if not, what to do."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter, validators
from rich.console import Console
from rich.text import Text

from k2.cli.output import TEXT, Output, print_json
from k2.cli.session import session
from k2.ingestion.supervision import ExitCode

if TYPE_CHECKING:
    from k2.doctor.examination import Check, Line

Subject = Literal["ws", "rest", "kafka", "registry", "lake", "machine"]

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


def doctor(
    *subjects: Subject,
    outage_h: Annotated[float, Parameter(validator=validators.Number(gt=0))] = 72.0,
    kafka_bootstrap: str | None = None,
    schema_registry: str | None = None,
    state_dir: Path | None = None,
    output: Output = TEXT,
) -> int:
    """Look at everything k2 depends on: a line each, with the fix. Exit 1 when anything fails.

    Nothing is changed, and no product topic or transactional id is touched.

    Examples: `k2 doctor`, `k2 doctor ws`, `k2 doctor kafka registry --json`,
    `k2 doctor kafka --outage-h 168`.

    Args:
        subjects: ws, rest, kafka, registry, lake, machine (default: all).
        outage_h: Hours the archive may be away; what Kafka keeps is compared with it.
        kafka_bootstrap: Kafka's host:port (KAFKA_BOOTSTRAP).
        schema_registry: The registry's address (SCHEMA_REGISTRY_URL).
        state_dir: Where `k2 up` kept everything (K2_STATE_DIR, default var).
        output: Text for people, or JSON.
    """
    from k2.doctor.checks import SUBJECTS, checks_of  # noqa: PLC0415 - `k2 --help` stays fast
    from k2.doctor.examination import examine  # noqa: PLC0415
    from k2.doctor.finding import Level  # noqa: PLC0415

    settings = session(
        {
            "kafka_bootstrap": kafka_bootstrap,
            "schema_registry_url": schema_registry,
            "state_dir": state_dir,
        }
    )
    checks = checks_of(
        settings,
        subjects=subjects or SUBJECTS,
        outage_s=outage_h * 3600,
        log_dir=settings.log_file.parent if settings.log_file else Path("logs"),
    )
    lines = _examined(checks, examine)
    failed = sum(line.level is Level.FAIL for line in lines)
    warned = sum(line.level is Level.WARN for line in lines)
    if output.as_json:
        print_json({"fail": failed, "warn": warned, "findings": lines})
    else:
        _print(lines)
        Console().print(f"{len(lines)} looked at: {failed} fail, {warned} warn", highlight=False)
    return ExitCode.FAILED if failed else ExitCode.CLEAN


def _examined(checks: "Sequence[Check]", examine: "Callable[..., list[Line]]") -> "list[Line]":
    """Run the checks; on a terminal say meanwhile what is waited for."""
    console = Console(stderr=True)
    if not (console.is_terminal and sys.stdout.isatty()):
        return examine(checks, waiting=lambda _: None)
    with console.status("looking ...") as status:
        return examine(
            checks,
            waiting=lambda running: status.update(
                "waiting for " + ", ".join(f"{one.subject} {one.name}" for one in running)
            ),
        )


def _print(lines: "Sequence[Line]") -> None:
    console = Console(soft_wrap=True)
    subjects = max((len(line.subject) for line in lines), default=0)
    checks = min(48, max((len(line.check) for line in lines), default=0))
    for line in lines:
        text = Text(f"{line.level.value:<5}", style=_COLOURS[line.level.value])
        text.append(f" {line.subject:<{subjects}}  {line.check:<{checks}}  {line.seen}", "default")
        console.print(text, highlight=False)
        if line.fix:
            console.print(Text(f"{'':<{subjects + 8}}fix: {line.fix}", "bold"), highlight=False)
