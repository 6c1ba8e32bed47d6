"""What ``k2 up`` needs Kafka, registry and lake for: preparing topics, watching, and the proof."""

import time
from pathlib import Path

from confluent_kafka.admin import AdminClient
from rich.console import Console, Group

from k2.kafka.encoding import SCHEMA_TEXT
from k2.kafka.registry import Registry
from k2.kafka.topics import TopicNames, create_topics, topic_facts
from k2.lake.proof import prove
from k2.lake.query import LakeReader
from k2.lake.report import show_proof
from k2.lake.tables import open_catalog
from k2.local.health_look import HealthLook
from k2.local.view import Watcher, line, render


class Observer:
    """The eyes of one run; blocking, except ``line`` and ``render``."""

    def __init__(
        self,
        *,
        bootstrap: str,
        registry_url: str,
        topic_prefix: str,
        shards: int,
        lake_dir: Path,
        lake_catalog: str,
        symbols: list[str],
        health_port: int,
    ) -> None:
        """Create the topics, register the schema, begin to watch both ends.

        The services do the first two as well, and nothing is done twice: who comes first does it.
        """
        names = TopicNames.of(topic_prefix)
        admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 2})
        create_topics(admin, names, shards=shards)
        Registry(registry_url).register(names.subject, SCHEMA_TEXT)
        self._symbols = symbols
        self._catalog = open_catalog(lake_dir=lake_dir, catalog_name=lake_catalog)
        self.watcher = Watcher(
            bootstrap=bootstrap,
            topic=names.trades,
            partitions=topic_facts(admin, names)[names.trades].partitions,
            catalog=self._catalog,
            symbols=symbols,
        )
        self._health = HealthLook(health_port)
        self.watcher.start()
        self._health.start()

    def stop(self) -> None:
        """Watch no more."""
        self._health.stop()
        self.watcher.stop()

    def line(self) -> str:
        """Return what is seen as one line."""
        return line(self.watcher, problems=self._health.problems)

    def render(self, *, title: str, places: dict[str, Path | str]) -> Group:
        """Return what is seen for a terminal."""
        problems = self._health.problems
        return render(self.watcher, title=title, places=places, problems=problems)

    def show_proof(self, console: Console) -> bool:
        """Prove the lake, print the proof, return the verdict."""
        proof = prove(LakeReader(self._catalog), configured=self._symbols)
        show_proof(console, proof, now_us=time.time_ns() // 1000)
        return proof.complete
