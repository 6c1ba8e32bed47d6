"""``k2 up`` and ``k2 down``: everything on this machine."""

import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from k2.cli.session import ONE_FLAG, Port, Symbols
from k2.settings import SettingsError, load_settings

RATE_MAX = 50_000


def up(
    *,
    symbols: Symbols = None,
    stream: Literal["aggTrade", "trade"] | None = None,
    exchange: Literal["auto", "binance", "built-in"] = "auto",
    tape: Path | None = None,
    speed: str | None = None,
    rate: float = 100.0,
    run_for: Annotated[str | None, Parameter(name=["--for"])] = None,
    stack_only: Annotated[bool, ONE_FLAG] = False,
    observe: Annotated[bool, ONE_FLAG] = False,
    kafka_port: Port | None = None,
    registry_port: Port | None = None,
    ports: Literal["fixed", "auto"] = "fixed",
    advertise: str | None = None,
    advertised_port: Port | None = None,
    state_dir: Path | None = None,
) -> int:
    """Start everything on this machine and watch trades arrive in the lake.

    Kafka, schema registry, capture and archive run until Ctrl-C, which stops them in order and
    ends with the verdict of `k2 verify`. Trades come from Binance when it can be reached, else
    from the built-in exchange, in topics and a lake of their own.

    Examples: `k2 up`, `k2 up --for 60s --ports auto`, `k2 up --stack-only --kafka-port 9192`,
    `k2 up --tape btcusdt.ndjson.gz --stream trade --speed 10`, `k2 up --observe`.

    Args:
        symbols: Symbols to record (BINANCE_SYMBOLS); with --tape those in the recording.
        stream: aggTrade or trade (BINANCE_STREAM).
        exchange: auto, binance or built-in.
        tape: Play this recording instead of trading.
        speed: With --tape: how much faster than recorded: 1 (default), 10, max.
        rate: Trades per second of the built-in exchange, over all its symbols.
        run_for: Stop by itself after so long: 60s, 5m, 1h.
        stack_only: Only Kafka and the registry.
        observe: Run Prometheus too, when it is installed, on port 9090 with the shipped alerts.
        kafka_port: Kafka's port (default 9092).
        registry_port: The registry's port (default 8081).
        ports: auto picks a free port for all that are not given, so that stacks live side by side.
        advertise: Host by which containers reach this machine; adds a listener for them.
        advertised_port: Port of that listener (default 19092).
        state_dir: Where everything is kept (K2_STATE_DIR, default var).
    """
    from k2.local.stack import (  # noqa: PLC0415 - `k2 --help` stays fast
        ADVERTISED_PORT,
        KAFKA_PORT,
        REGISTRY_PORT,
    )
    from k2.local.up import run_up  # noqa: PLC0415
    from k2.local.up_options import UpOptions  # noqa: PLC0415

    auto = ports == "auto"
    settings = load_settings({"symbols": symbols, "stream": stream, "state_dir": state_dir})
    if tape is not None and not tape.is_file():
        raise SettingsError(f"--tape {tape}: expected a recording, there is no such file")
    if speed is not None and tape is None:
        raise SettingsError(f"--speed {speed}: goes with --tape; --rate sets how much is traded")
    if speed not in (None, "max") and not _is_positive(speed or ""):
        raise SettingsError(f"--speed {speed}: expected a number above 0, or max")
    if observe and stack_only:
        raise SettingsError("--observe: there is nothing to watch with --stack-only")
    if not 0 < rate <= RATE_MAX:
        raise SettingsError(f"--rate {rate:g}: expected trades per second, above 0 to {RATE_MAX}")
    return run_up(
        UpOptions(
            settings=settings,
            symbols_given=symbols is not None,
            kafka_port=kafka_port or (None if auto else KAFKA_PORT),
            registry_port=registry_port or (None if auto else REGISTRY_PORT),
            advertise=advertise,
            advertised_port=advertised_port or (None if auto else ADVERTISED_PORT),
            auto_ports=auto,
            stack_only=stack_only,
            exchange=exchange,
            tape=tape,
            speed=speed or "1",
            rate=rate,
            run_for_s=None if run_for is None else _duration_s(run_for),
            observe=observe,
        )
    )


def down(
    *,
    delete: Annotated[bool, ONE_FLAG] = False,
    yes: Annotated[bool, ONE_FLAG] = False,
    state_dir: Path | None = None,
) -> int:
    """Stop what a killed `k2 up` left running; with --delete remove its data too.

    Examples: `k2 down`, `k2 down --delete`.

    Args:
        delete: Remove what k2 keeps in the state directory: Kafka's data, the registry's, and the
            LAKE. On a terminal it asks first.
        yes: With --delete: do not ask.
        state_dir: The state directory (K2_STATE_DIR, default var).
    """
    from k2.local.down import run_down  # noqa: PLC0415 - `k2 --help` stays fast

    settings = load_settings({"state_dir": state_dir})
    asks = sys.stdin.isatty() and sys.stdout.isatty() and not yes
    return run_down(
        settings.state_dir, delete=delete, confirm=asked if asks else lambda _what: True
    )


def asked(what: str) -> bool:
    """Say whether the one at the terminal agrees; no answer (Ctrl-D) is none."""
    try:
        answer = input(f"{what}\nThis cannot be undone. Remove? (y/N) ")
    except EOFError:
        sys.stdout.write("\n")
        return False
    return answer.strip().lower() in ("y", "yes")


def _is_positive(text: str) -> bool:
    try:
        return 0 < float(text) < 10**6
    except ValueError:
        return False


def _duration_s(text: str) -> float:
    units = {"s": 1, "m": 60, "h": 3600}
    number, unit = (text[:-1], text[-1]) if text[-1:] in units else (text, "s")
    try:
        seconds = float(number) * units[unit]
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 10**8:
        raise SettingsError(f"--for {text}: expected a duration such as 60s, 5m or 1h")
    return seconds
