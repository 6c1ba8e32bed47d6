"""The shipped capture as a simulated process: everything below its ports is the world's."""

import io
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any
from unittest.mock import patch

from k2.ingestion.admission import Prepared
from k2.ingestion.capture import Capture
from k2.ingestion.host import Host
from k2.ingestion.membership import Wish
from k2.ingestion.ports import Ports
from k2.ingestion.spill import Spill
from k2.ingestion.supervision import ExitCode
from k2.kafka.clients import Clients
from k2.kafka.lease import POLL_INTERVAL_MAX_S, Lease, group_id
from k2.kafka.topics import TopicFacts
from k2.market.wanted import parse_names
from k2.settings import Settings
from simulation.variation import Limits
from simulation.world.blocking import Worker
from simulation.world.world import Main, Process, World

UPTIME_S = 1000.0
"""A machine's clock is not at 0 when a process starts on it."""

SLICE_S = 3600.0
"""The simulated lease consumer's poll returns once it has told of a change."""


class Letters:
    """Dead letters, counted."""

    def __init__(self) -> None:
        self.written = 0
        self.failed = 0

    def write(self, **_letter: Any) -> None:
        """Count one."""
        self.written += 1


def sim_settings(symbols: list[str], **given: Any) -> Settings:
    """Return settings for the simulated exchange, whatever the environment says."""
    known = {
        "ws_url": "ws://a.exchange/ws",
        "ws_url_fallback": "ws://b.exchange/ws",
        "symbols": ",".join(symbols),
        "kafka_bootstrap": "kafka:9092",
        "reconnect_delay_min_s": 0.5,
        "reconnect_delay_max_s": 8.0,
        **given,
    }
    return Settings.model_validate(known)


@contextmanager
def limited(limits: Limits) -> Iterator[None]:
    """Run the product with other bounds of ring and page; ``capture_main`` sets the others."""
    bounds = {
        "k2.ingestion.ring.RING_MAX": limits.ring_max,
        "k2.tape.healing.PAGE_ROWS": limits.page_rows,
        "k2.ingestion.healer.PAGE_ROWS": limits.page_rows,
        "k2.ingestion.backfill.PAGE_ROWS": limits.page_rows,
        "simulation.world.exchange_rest.PAGE_ROWS": limits.page_rows,
    }
    with ExitStack() as stack:
        for name, bound in bounds.items():
            stack.enter_context(patch(name, bound))
        yield


def capture_main(
    world: World,
    settings: Settings,
    *,
    poll_s: float = 1.0,
    poll_interval_max_s: float = POLL_INTERVAL_MAX_S,
    limits: Limits | None = None,
    made: Callable[[str, Capture], object] | None = None,
) -> Main:
    """Return the main function of an instance that runs the shipped capture.

    Args:
        world: Where it runs.
        settings: Of the instance.
        poll_s: Longest one look for news of Kafka blocks.
        poll_interval_max_s: The lease ends when it was not polled for so long.
        limits: Bounds of its hold and spill; the ring's and the page's are ``limited``'s.
        made: Told of each incarnation's name and capture.
    """
    limits = limits or Limits()
    facts = {
        topic: TopicFacts(f"id-{topic}", world.kafka.partitions_of(topic))
        for topic in world.topics.all()
    }
    prepared = Prepared(world.topics, facts, schema_id=1)

    async def may_connect() -> None:
        return None

    async def main(process: Process) -> ExitCode:
        host = Host(
            lambda: process.clock.monotonic_s() + UPTIME_S,
            process.clock.wall_ns,
            process.rng.random,
        )
        clients = Clients(process.kafka.producer, process.kafka.consumer)
        name = process.instance.name
        ports = Ports(
            host=host,
            connect=process.exchange.connect,
            may_connect=may_connect,
            rest=process.rest,
            clients=clients,
            worker=Worker,
            poll_s=poll_s,
        )

        def others() -> int:
            group = process.kafka.groups.group(group_id(world.topics.trades), world.topics.lease)
            return sum(member.node.name != name for member in group.members)

        capture = Capture(
            settings,
            parse_names(settings.symbols),
            prepared,
            ports,
            Letters(),  # type: ignore[arg-type]  # what the capture uses of DeadLetters
            make_lease=lambda: Lease(
                settings.kafka,
                names=world.topics,
                client_id=name,
                poll_interval_max_s=poll_interval_max_s,
                clients=clients,
                slice_s=SLICE_S,
                monotonic_s=host.monotonic_s,
            ),
            others=others,
        )
        spill = Spill(Path(), max_bytes=limits.spill_max_bytes, open_file=_in_memory)
        for shard in capture.shards:
            shard._hold.limit = limits.hold_max
            shard._spill = spill
        process.change_role = lambda role: capture.membership.become(Wish(role))
        if made is not None:
            made(name, capture)
        return await capture.run(process.stop)

    return main


def _in_memory(_directory: Path) -> IO[bytes]:
    return io.BytesIO()
