"""The exchange in a box with settings its command has no flags for, given as JSON."""

import asyncio
import json
import sys

import msgspec

from k2.simulator import Exchange, ExchangeConfig


def _convert(kind: type, value: object) -> object:
    return kind(value)  # a path


async def run(config: ExchangeConfig) -> None:
    """Run until killed."""
    async with Exchange(config) as exchange:
        sys.stdout.write(json.dumps({"rest_url": exchange.rest_url}) + "\n")
        sys.stdout.flush()
        await exchange.wait_failed()


if __name__ == "__main__":
    asyncio.run(run(msgspec.json.decode(sys.argv[1], type=ExchangeConfig, dec_hook=_convert)))
