"""``k2 backfill``: have a tape begin earlier."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter, validators
from rich.console import Console

from k2.cli.output import TEXT, Output, print_json
from k2.cli.session import session
from k2.errors import RejectError
from k2.ingestion.supervision import ExitCode
from k2.settings import Settings, SettingsError

if TYPE_CHECKING:
    from k2.ingestion.backfill_order import Order, Progress


def backfill(
    *,
    symbol: str,
    from_id: Annotated[int | None, Parameter(validator=validators.Number(gte=0))] = None,
    since: str | None = None,
    wait: bool | None = None,
    kafka_bootstrap: str | None = None,
    state_dir: Path | None = None,
    output: Output = TEXT,
) -> int:
    """Have a symbol's past recorded: its tape then begins at an earlier id.

    The running `k2 stream` fetches it by REST, page by page downwards; without one it begins as
    soon as one starts. It can be interrupted at any point and goes on by itself.

    Examples: `k2 backfill --symbol BTCUSDT --from-id 3712000000`,
    `k2 backfill --symbol BTCUSDT --since 2026-11-01 --no-wait`.

    Args:
        symbol: The symbol; it must have a tape already.
        from_id: The id its tape is to begin at; the exchange's first id, where that is later.
        since: Or the date or time (ISO, UTC unless it says otherwise); aggTrade only.
        wait: Show the progress until it is done (default: on a terminal).
        kafka_bootstrap: Kafka's host:port (KAFKA_BOOTSTRAP).
        state_dir: Where `k2 up` kept everything (K2_STATE_DIR, default var).
        output: Text for people, or JSON.
    """
    from k2.ingestion.backfill_order import Order, order_backfill  # noqa: PLC0415 - fast `--help`

    if (from_id is None) == (since is None):
        raise SettingsError("backfill: expected one of --from-id and --since")
    settings = session({"kafka_bootstrap": kafka_bootstrap, "state_dir": state_dir})
    symbol = symbol.upper()
    if from_id is None:
        from_id = _id_since(settings, symbol, since or "")
    ordered = order_backfill(settings, symbol=symbol, from_id=from_id)
    if not isinstance(ordered, Order):
        _say(ordered, output)
        return ExitCode.CLEAN
    if ordered.asked_for < ordered.request.from_id:
        Console(stderr=True, soft_wrap=True).print(
            f"{symbol}: the exchange's ids begin at {ordered.request.from_id}; there is nothing "
            f"before, so its tape is to begin there and not at {ordered.asked_for}",
            markup=False,
            highlight=False,
        )
    waits = sys.stdout.isatty() if wait is None else wait
    return _wait(settings, ordered, output) if waits else _leave(ordered, output)


def _id_since(settings: Settings, symbol: str, since: str) -> int:
    from k2.ingestion.backfill_order import id_since, moment  # noqa: PLC0415 - fast `--help`

    try:
        when = moment(since)
    except ValueError as exc:
        raise SettingsError(
            f"--since {since}: expected a date or time such as 2026-11-01 or 2026-11-01T06:30"
        ) from exc
    return id_since(settings, symbol, when)


def _leave(order: "Order", output: Output) -> int:
    if output.as_json:
        print_json({"stage": "requested", **_facts(order)})
    else:
        _print(
            f"{order.request.symbol}: {order.began_at - order.request.from_id:,} ids asked for, "
            f"down to {order.request.from_id}. `k2 positions show` says how far it is"
        )
    return ExitCode.CLEAN


def _wait(settings: Settings, order: "Order", output: Output) -> int:
    from rich.progress import (  # noqa: PLC0415 - `k2 --help` stays fast
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    from k2.ingestion.backfill_order import Stage, watch  # noqa: PLC0415

    now = None
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=output.as_json),
    )
    try:
        with bar:
            task = bar.add_task(order.request.symbol, total=None)
            for now in watch(settings, order):
                waits = ": waits for a `k2 stream`" if now.stage is Stage.REQUESTED else ""
                bar.update(
                    task,
                    description=order.request.symbol + waits,
                    completed=now.ids_done,
                    total=None if waits else now.ids_wanted,
                )
    except KeyboardInterrupt:
        Console(stderr=True).print(
            "the backfill goes on without you: `k2 positions show` says how far it is",
            highlight=False,
        )
        raise
    if now is None or now.stage is Stage.REFUSED:
        raise RejectError(f"the writer of {order.request.symbol} did not take it up: see its log")
    _say(now, output)
    return ExitCode.CLEAN


def _say(now: "Progress", output: Output) -> None:
    from k2.ingestion.backfill_order import Stage  # noqa: PLC0415 - `k2 --help` stays fast

    if output.as_json:
        print_json(now)
    elif now.stage is Stage.NOTHING_TO_DO:
        nothing = " and the exchange has nothing before" if now.from_id < now.first_id else ""
        _print(
            f"{now.symbol}: nothing to do, its tape begins at id {now.first_id} already{nothing}"
        )
    else:
        early = now.first_id > now.from_id
        nothing = f"; the exchange has nothing as early as {now.from_id}" if early else ""
        _print(f"{now.symbol}: done, its tape begins at id {now.first_id}{nothing}")


def _facts(order: "Order") -> dict[str, object]:
    return {
        "symbol": order.request.symbol,
        "from_id": order.request.from_id,
        "first_id": order.began_at,
        "ids_done": 0,
        "ids_wanted": order.began_at - order.request.from_id,
        "request_id": order.request.request_id,
        "asked_for": order.asked_for,
    }


def _print(text: str) -> None:
    Console().print(text, markup=False, highlight=False, soft_wrap=True)
