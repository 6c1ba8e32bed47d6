"""``k2 exchange``: run the exchange in a box from the command line."""

import asyncio
import json
import signal
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import cyclopts
from cyclopts import Parameter

from k2.errors import StopError
from k2.simulator.config import ExchangeConfig
from k2.simulator.exchange import Exchange, parse_speed

app = cyclopts.App(
    name="exchange",
    help="Run the built-in exchange: Binance's trade streams and REST on one local port.",
    help_epilogue=(
        "Examples:\n\n"
        "  k2 exchange --rate 500 --data-dir var/exchange\n\n"
        "  k2 exchange --tape btcusdt.ndjson.gz --speed 10"
    ),
)


@app.default
def run(
    *,
    host: str = "127.0.0.1",
    port: int = 9443,
    symbols: Annotated[tuple[str, ...], Parameter(consume_multiple=True, negative="")] = (),
    seed: int = 1,
    rate: float = 100.0,
    tape: Path | None = None,
    speed: str = "1",
    data_dir: Path | None = None,
    rest_delay: float = 0.0,
    ping_interval: float = 20.0,
    ping_timeout: float = 60.0,
    json_output: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> None:
    """Run the built-in exchange until Ctrl-C or SIGTERM.

    The first line of output is its address. Its trades are invented (or, with ``--tape``,
    recorded): never record them beside real ones.

    Args:
        host: Address to listen on, e.g. ``--host 127.0.0.1``.
        port: Port for WebSocket and REST, e.g. ``--port 9443``; 0 picks a free one.
        symbols: Symbols to list, e.g. ``--symbols BTCUSDT ETHUSDT``; all built-in ones if absent.
        seed: Seed of the generated tape, e.g. ``--seed 7``.
        rate: Aggregate trades per second over all symbols, e.g. ``--rate 500``.
        tape: Play this recording instead, e.g. ``--tape btcusdt.ndjson.gz``; starts with the
            first subscription.
        speed: How much faster than recorded, e.g. ``--speed 10`` or ``--speed max``.
        data_dir: Keep the ledger here and go on from it after a restart, e.g.
            ``--data-dir var/exchange``; without it nothing is kept.
        rest_delay: Seconds REST trails the stream, e.g. ``--rest-delay 2``.
        ping_interval: Seconds between the server's pings, e.g. ``--ping-interval 20``.
        ping_timeout: Seconds a client has for the pong, e.g. ``--ping-timeout 60``.
        json_output: Print the first line as JSON.
    """
    try:
        config = ExchangeConfig(
            host=host,
            port=port,
            symbols=tuple(name for text in symbols for name in text.split(",") if name),
            seed=seed,
            rate=rate,
            tape=tape,
            speed=parse_speed(speed),
            data_dir=data_dir,
            rest_delay_s=rest_delay,
            ping_interval_s=ping_interval,
            ping_timeout_s=ping_timeout,
        )
        asyncio.run(_serve(config, json_output=json_output))
    except (StopError, ValueError) as exc:
        _refuse(str(exc), exit_code=2)


async def _serve(config: ExchangeConfig, *, json_output: bool) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with Exchange(config) as exchange:
        _announce(exchange, json_output=json_output)
        failed = asyncio.create_task(exchange.wait_failed(), name="failure")
        tasks = [
            asyncio.create_task(stop.wait(), name="signal"),
            failed,
        ]
        if config.tape is not None:
            tasks.append(asyncio.create_task(_say_finished(exchange), name="finished"))
        await asyncio.wait(tasks[:2], return_when=asyncio.FIRST_COMPLETED)
        failure = failed.exception() if failed.done() else None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if isinstance(failure, StopError):
            _refuse(f"the exchange stopped: {failure}", exit_code=1)


def _announce(exchange: Exchange, *, json_output: bool) -> None:
    recording = exchange.recording
    if json_output:
        first = {
            "rest_url": exchange.rest_url,
            "ws_url": exchange.ws_url,
            "host": exchange.config.host,
            "port": exchange.port,
            "symbols": list(exchange.listings),
            "tape": "generated" if recording is None else "recording",
            "aggregates_derived": recording is not None,
        }
        _say(json.dumps(first, ensure_ascii=False))
        return
    _say(exchange.rest_url)
    _say(f"streams: {exchange.ws_url}/stream   symbols: {' '.join(exchange.listings)}")
    if recording is None:
        _say(f"invented trades, seed {exchange.config.seed}, {exchange.config.rate:g} per second")
    else:
        skipped = ", ".join(f"{count} {name}" for name, count in recording.skipped_frames.items())
        _say(
            f"recording: {recording.fills} fills over {recording.duration_s:.0f} s at speed "
            f"{exchange.config.speed:g}, starts with the first subscription; "
            f"{recording.aggregates} aggregate trades are derived from the fills; "
            f"not played: {skipped or 'nothing'}"
        )


async def _say_finished(exchange: Exchange) -> None:
    await exchange.wait_tape_finished()
    _say("the recording has been played to its end; REST goes on serving it")


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _refuse(message: str, *, exit_code: int) -> NoReturn:
    sys.stderr.write(" ".join(message.split()) + "\n")
    raise SystemExit(exit_code)


def main(arguments: list[str] | None = None) -> None:
    """Run the command by itself: ``python -m k2.simulator.command``."""
    try:
        app(arguments, exit_on_error=False, print_error=False)
    except cyclopts.CycloptsError as exc:
        exc.verbose = False
        _refuse(str(exc), exit_code=2)


if __name__ == "__main__":
    main()
