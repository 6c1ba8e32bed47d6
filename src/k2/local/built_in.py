"""The built-in exchange of a ``k2 up``: how it is started, and what it lists."""

import asyncio
import sys
import time
from pathlib import Path

import aiohttp
import msgspec

from k2.errors import StopError
from k2.local.services import Service
from k2.local.up_options import UpOptions

READY_DEADLINE_S = 20.0


def exchange_command(options: UpOptions, *, data_dir: Path, port: int) -> tuple[str, ...]:
    """Return the command line of an exchange that trades, or replays what the options name."""
    argv = [sys.executable, "-m", "k2", "exchange", "--port", str(port)]
    argv += ["--data-dir", str(data_dir)]
    if options.tape is not None:
        argv += ["--tape", str(options.tape.absolute()), "--speed", options.speed]
    else:
        argv += ["--rate", f"{options.rate:g}"]
    return tuple(argv)


async def listed_symbols(rest_url: str, exchange: Service) -> list[str]:
    """Return what the exchange lists, once it answers.

    Raises:
        StopError: If it ended, or does not answer in time.
    """
    deadline_s = time.monotonic() + READY_DEADLINE_S
    async with aiohttp.ClientSession() as session:
        while True:
            try:
                async with session.get(f"{rest_url}/api/v3/exchangeInfo") as reply:
                    info = msgspec.json.decode(await reply.read())
                    return [row["symbol"] for row in info["symbols"]]
            except aiohttp.ClientConnectionError as exc:
                if time.monotonic() > deadline_s or not exchange.running:
                    raise StopError(
                        f"the built-in exchange does not answer: {exchange.said()}"
                    ) from exc
            await asyncio.sleep(0.05)
