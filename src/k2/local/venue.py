"""Which exchange a local run records, and where its trades may go.

Invented trades and replayed ones get a topic prefix, a lake and an exchange folder of their own,
so that they never meet real ones; single fills and aggregates never meet either.
"""

from enum import Enum
from pathlib import Path

import aiohttp
import msgspec

from k2.errors import StopError
from k2.ingestion.venue import tls_of
from k2.market import StreamKind
from k2.settings import Settings

PROBE_TIMEOUT_S = 3.0


class VenueKind(Enum):
    """Where the trades come from."""

    BINANCE = "binance"
    CONFIGURED = "configured"
    """An address the operator set in BINANCE_WS_URL."""
    BUILT_IN = "built-in"
    RECORDING = "recording"


class Venue(msgspec.Struct, frozen=True):
    """One exchange to record, and the names its trades live under."""

    kind: VenueKind
    topic_prefix: str
    lake_dir: Path
    exchange_dir: Path
    said: str
    """What the user is told, plainly."""


async def choose_venue(settings: Settings, *, wish: str, tape: Path | None) -> Venue:
    """Choose the exchange.

    Args:
        settings: For the addresses, the prefix and the state directory.
        wish: ``auto``, ``binance`` or ``built-in``.
        tape: A recording to play instead.
    """
    if tape is not None:
        # Not with_suffix: a.ndjson.gz and b.ndjson.gz are two recordings, a.1.gz is one more.
        name = tape.name.split(".")[0]
        said = f"recording {tape.name}: a replay, in a lake and topics of its own"
        return _venue(VenueKind.RECORDING, f"recorded-{name}", said, settings)
    configured = settings.ws_url != Settings.model_fields["ws_url"].default
    if wish != "built-in" and configured:
        said = f"the exchange at {settings.ws_url} (BINANCE_WS_URL)"
        # Another address of the same production ids is the same tape.
        name = "" if settings.environment == "production" else settings.environment
        return _venue(VenueKind.CONFIGURED, name, said, settings)
    if wish == "binance" or (wish == "auto" and await _answers(settings)):
        return _venue(VenueKind.BINANCE, "", "Binance, live", settings)
    why = "Binance cannot be reached from here" if wish == "auto" else "as asked"
    said = f"the built-in exchange ({why}): INVENTED trades, in a lake and topics of their own"
    return _venue(VenueKind.BUILT_IN, "simulated", said, settings)


def _venue(kind: VenueKind, name: str, said: str, settings: Settings) -> Venue:
    fills = settings.stream is StreamKind.TRADE
    parts = [part for part in (name, "fills" if fills else "") if part]
    topic_prefix = ".".join([*parts, settings.topic_prefix])
    folder = "-".join(["lake", *parts])
    state_dir = settings.state_dir.absolute()
    return Venue(
        kind=kind,
        topic_prefix=topic_prefix,
        lake_dir=_lake_dir(settings, state_dir, folder, real=not name),
        exchange_dir=state_dir / f"exchange-{name or 'none'}",
        said=said,
    )


def _lake_dir(settings: Settings, state_dir: Path, folder: str, *, real: bool) -> Path:
    if settings.lake_catalog and not real:
        raise StopError(
            "K2_LAKE_CATALOG names a shared catalog: only Binance's own trades go there. Unset it, "
            "or record with --exchange binance"
        )
    if settings.lake_dir is None:
        return state_dir / folder
    # A lake somebody named holds real trades; others get a folder inside it.
    return settings.lake_dir if folder == "lake" else settings.lake_dir / folder


async def _answers(settings: Settings) -> bool:
    timeout = aiohttp.ClientTimeout(total=PROBE_TIMEOUT_S)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(f"{settings.rest_urls[0]}/api/v3/ping", ssl=tls_of(settings)) as reply,
        ):
            return reply.status == 200
    except (TimeoutError, aiohttp.ClientError, OSError):
        return False
