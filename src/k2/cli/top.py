"""``k2 top``: a running capture in a terminal, live."""

from typing import Annotated

import msgspec
from cyclopts import Parameter
from rich.console import Console

from k2.cli.output import TEXT, Output, print_json, print_table
from k2.errors import RetryError
from k2.ingestion.supervision import ExitCode


def top(
    *,
    url: str = "",
    once: Annotated[bool, Parameter(negative="")] = False,
    output: Output = TEXT,
) -> int:
    """Watch a running capture: what is wrong, legs, Kafka, lake, memory and each symbol.

    The same as its status page, in a terminal; q ends it.

    Examples: `k2 top`, `k2 top --url http://127.0.0.1:8002`, `k2 top --once --json`.

    Args:
        url: Where it serves (default: this machine, K2_HEALTH_PORT).
        once: Print one status and end; exit 1 when it is unhealthy or does not answer.
        output: Text for people, or JSON (with --once).
    """
    from k2.cli.session import session  # noqa: PLC0415 - `k2 --help` stays fast

    url = url.rstrip("/") or f"http://127.0.0.1:{session({}).health_port}"
    if once or output.as_json:
        return _once(url, as_json=output.as_json)
    from k2.cli.top_screen import TopScreen  # noqa: PLC0415 - Textual takes 0.3 s to import

    TopScreen(url).run()
    return ExitCode.CLEAN


def _once(url: str, *, as_json: bool) -> int:
    from k2.cli.status_events import decode_status, status_once  # noqa: PLC0415
    from k2.cli.status_text import (  # noqa: PLC0415
        LEG_COLUMNS,
        TAPE_COLUMNS,
        facts,
        leg_row,
        problem_lines,
        tape_row,
        verdict,
    )

    body = status_once(url)
    if as_json:
        try:
            found = msgspec.json.decode(body)
        except msgspec.MsgspecError as exc:
            raise RetryError(f"{url} is none of ours: {exc}") from exc
        print_json(found)
        good = isinstance(found, dict) and found.get("status") in ("healthy", "degraded")
        return ExitCode.CLEAN if good else ExitCode.FAILED
    health = decode_status(body)
    console = Console()
    for line in (verdict(health), *problem_lines(health), *facts(health)):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    print_table(LEG_COLUMNS, [leg_row(leg, health.legs) for leg in health.legs])
    print_table(TAPE_COLUMNS, [tape_row(tape) for tape in health.tapes])
    return ExitCode.FAILED if health.status == "unhealthy" else ExitCode.CLEAN
