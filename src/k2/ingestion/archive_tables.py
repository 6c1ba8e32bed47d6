"""Which topic fills which table: three topics, two tables.

What was declared goes to ``gaps``; trades, late trades and the past go to ``trades``.
"""

from collections.abc import Mapping

from k2.errors import RetryError
from k2.ingestion.archive_figures import ArchiveFigures, Declared
from k2.ingestion.topic_archive import CONSUMER_GROUP, TopicArchive
from k2.kafka.dead_letters import DeadLetters
from k2.kafka.encoding import SCHEMA_TEXT
from k2.kafka.topics import TopicFacts, TopicNames
from k2.lake.commit_plan import Source
from k2.lake.decoding import GapDecoder, TradeDecoder
from k2.lake.tables import open_catalog
from k2.lake.writer import TableWriter
from k2.settings import Settings


def trade_decoder(settings: Settings) -> TradeDecoder:
    """Return what makes rows of trades, with schemas of the registry the settings name."""
    registry = settings.registry
    subject = TopicNames.of(settings.topic_prefix).subject

    def known_schema(schema_id: int) -> str | None:
        text = registry.schema_text(schema_id)
        if text is None and registry.latest(subject) is None:
            # An emptied or wrong registry must not turn good trades into dead letters.
            raise RetryError(
                f"the registry at {registry.url} knows no schema of {subject}: is it the "
                "right one? `k2 schema register` registers ours"
            )
        return text

    return TradeDecoder(known_schema, reader_schema_text=SCHEMA_TEXT)


def open_archives(
    settings: Settings,
    facts: Mapping[str, TopicFacts],
    decoder: TradeDecoder,
    dead_letters: DeadLetters,
    *,
    from_first: bool,
) -> list[TopicArchive]:
    """Open both tables and begin to read all topics; blocking.

    Gaps come first: a declared id must never look missing for want of its declaration.

    Raises:
        RetryError: If the lake cannot be reached.
        StopError: If a table contradicts itself or was filled from another topic.
    """
    names = TopicNames.of(settings.topic_prefix)
    catalog = open_catalog(lake_dir=settings.lake_path, catalog_name=settings.lake_catalog)

    def named(topic: str) -> str:
        return f"{topic}@{facts[topic].topic_id}"

    gaps = TableWriter(
        catalog,
        "gaps",
        GapDecoder(),
        topics={Source.MAIN: named(names.gaps)},
        from_first=from_first,
    )
    trades = TableWriter(
        catalog,
        "trades",
        decoder,
        topics={Source.MAIN: named(names.trades), Source.REPAIRS: named(names.repairs)},
        from_first=from_first,
    )
    declared = Declared(gaps.rows())

    def archive_of(
        topic: str, writer: TableWriter, source: Source = Source.MAIN, *, torn_from_rows: int = 0
    ) -> TopicArchive:
        return TopicArchive(
            settings,
            topic,
            writer,
            figures=ArchiveFigures(
                writer, declared, topic=topic, group=CONSUMER_GROUP, source=source
            ),
            dead_letters=dead_letters,
            partitions=facts[names.trades].partitions,
            source=source,
            torn_from_rows=torn_from_rows,
        )

    return [
        archive_of(names.gaps, gaps),
        archive_of(names.trades, trades),
        # Half a page of the past would be a hole below the tape for as long as that.
        archive_of(names.repairs, trades, Source.REPAIRS, torn_from_rows=settings.flush_rows),
    ]
