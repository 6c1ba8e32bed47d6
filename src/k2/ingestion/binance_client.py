"""``k2 stream``: the capture service, also runnable as this file.

Such as ``python src/k2/ingestion/binance_client.py --symbols BTCUSDT ETHUSDT BNBUSDT
--kafka-bootstrap localhost:9092 --schema-registry http://localhost:8081``.
"""

import asyncio
import os
import sys
from pathlib import Path
from typing import Annotated, Literal

import structlog
from cyclopts import App, Parameter

from k2 import __version__
from k2.errors import K2Error, StopError
from k2.ingestion.listing import UnlistedError, how_to_mend
from k2.ingestion.own_ports import require_own_ports
from k2.ingestion.service import log_to_file, read_settings
from k2.ingestion.shown_settings import print_settings
from k2.ingestion.stream import run_capture
from k2.ingestion.supervision import ExitCode, UnavailableError, first_of, stop_on_signals
from k2.ingestion.symbols_file import wanted_symbols
from k2.market.wanted import Wanted
from k2.settings import Settings

LOG_FILE = Path("logs/binance_client.log")

_log = structlog.get_logger()

app = App(
    name="stream",
    version=__version__,
    help="Record trades: Binance socket to Kafka, each id once, in order.",
    help_epilogue=(
        "Examples:\n\n"
        "  k2 stream --symbols BTCUSDT ETHUSDT BNBUSDT\n\n"
        "  k2 stream --symbols BTCUSDT --stream trade --kafka-bootstrap localhost:9092\n\n"
        "Every flag has an environment variable; `--print-config` shows them all.\n\n"
        "Signals: SIGTERM or Ctrl-C ends it, after a hand-over; a second one at once. SIGUSR1 "
        "makes an observer auto, SIGUSR2 makes auto an observer. SIGHUP replaces the connection of "
        "every leg, make before break; to a process in a terminal it says that the terminal is "
        "gone, and ends it.\n\n"
        "Exit codes: 0 clean, 1 failed, 2 configuration (or a symbol the exchange does not list), "
        "3 stopped before Kafka had everything "
        "(heals at the next start), 4 a dependency is absent and --fail-fast was given."
    ),
)


@app.default
def stream(
    *,
    symbols: Annotated[list[str] | None, Parameter(consume_multiple=True, negative="")] = None,
    stream: Literal["aggTrade", "trade"] | None = None,
    legs: Literal[1, 2] | None = None,
    role: Literal["auto", "observer"] | None = None,
    kafka_bootstrap: str | None = None,
    schema_registry: str | None = None,
    log_level: str | None = None,
    fail_fast: Annotated[bool, Parameter(negative="")] = False,
    check: Annotated[bool, Parameter(negative="")] = False,
    print_config: Annotated[bool, Parameter(negative="")] = False,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Record trades: Binance socket to Kafka, each id once, in order.

    Args:
        symbols: Symbols to record, separated by spaces or commas (BINANCE_SYMBOLS).
        stream: aggTrade or trade (BINANCE_STREAM).
        legs: Connections every symbol arrives on at once, 2 or 1 (BINANCE_LEGS).
        role: auto (writer or hot standby, as the lease says) or observer, which never writes
            (K2_ROLE).
        kafka_bootstrap: Kafka's host:port (KAFKA_BOOTSTRAP).
        schema_registry: The registry's address (SCHEMA_REGISTRY_URL).
        log_level: DEBUG, INFO, WARNING or ERROR (K2_LOG_LEVEL).
        fail_fast: Exit 4 when Kafka, registry or exchange is absent, instead of waiting for it.
        check: Validate the settings and exit.
        print_config: Show every setting with its variable, and exit; NAME=value lines in a pipe.
        json: With --print-config: as JSON.
    """
    settings = read_settings(
        "stream",
        {
            "symbols": symbols,
            "stream": stream,
            "legs": legs,
            "role": role,
            "kafka_bootstrap": kafka_bootstrap,
            "schema_registry_url": schema_registry,
            "log_level": log_level.upper() if log_level else None,
        },
    )
    if settings is None:
        return ExitCode.CONFIGURATION
    if print_config:
        print_settings(settings, as_json=json)
        return ExitCode.CLEAN
    try:
        wanted = wanted_symbols(settings)
    except StopError as exc:
        sys.stderr.write(f"k2 stream: {exc}\n")
        return ExitCode.CONFIGURATION
    if check:
        return ExitCode.CLEAN
    if not log_to_file("stream", settings, default=LOG_FILE):
        return ExitCode.CONFIGURATION
    code = asyncio.run(_run(settings, wanted, fail_fast=fail_fast))
    if code is ExitCode.CLEAN:
        _log.info("Shutdown complete")
    return code


async def _run(settings: Settings, wanted: Wanted, *, fail_fast: bool) -> ExitCode:
    stop = stop_on_signals()
    _log.info(
        "stream_started",
        symbols=sorted(wanted.names | {f"all:{quote}" for quote in wanted.quotes}),
        stream=settings.stream.value,
        environment=settings.environment,
        kafka=settings.kafka_bootstrap,
        pid=os.getpid(),
    )
    if not settings.tls_verify:
        _log.warning(
            "tls_verification_is_off",
            variable="BINANCE_TLS_VERIFY",
            why="anybody on the way to the exchange can invent trades",
        )
    try:
        require_own_ports(
            {"K2_METRICS_PORT": settings.metrics_port, "K2_HEALTH_PORT": settings.health_port}
        )
        return await run_capture(settings, wanted, stop, fail_fast=fail_fast)
    except BaseExceptionGroup as group:
        problem = first_of(group)
        if not isinstance(problem, K2Error):
            raise
    except K2Error as exc:
        problem = exc
    return _stopped(settings, problem)


def _stopped(settings: Settings, problem: K2Error) -> ExitCode:
    reason = str(problem)
    if isinstance(problem, UnlistedError):
        reason = f"{reason}, {how_to_mend(settings, problem.names)}"
    _log.error("stream_stopped", reason=reason)
    if isinstance(problem, UnavailableError):
        return ExitCode.DEPENDENCY_UNAVAILABLE
    return ExitCode.CONFIGURATION if isinstance(problem, UnlistedError) else ExitCode.FAILED


def main() -> None:
    """Run the service; its exit code is the process's."""
    code = app(exit_on_error=True, result_action="return_value")
    sys.exit(code if isinstance(code, int) else ExitCode.CLEAN)


if __name__ == "__main__":
    main()
