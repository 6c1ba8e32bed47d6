from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import TopicPartition

from k2.errors import RetryError
from k2.ingestion import topic_archive
from k2.ingestion.archive_tables import open_archives, trade_decoder
from k2.kafka.dead_letters import DeadLetters
from k2.kafka.registry import Registry
from k2.kafka.topics import TopicFacts, TopicNames
from k2.lake.tables import open_catalog, require_table
from k2.settings import Settings
from k2.tape.coverage import Coverage


class Record:
    """One record, of any topic, that nothing follows so far."""

    def error(self) -> None: ...

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return 0

    def value(self) -> bytes:
        return b"v"

    def timestamp(self) -> tuple[int, int]:
        return 1, 1_000


class FakeConsumer:
    """Has one record ready, whatever it reads."""

    topics: list[str]

    def __init__(self, _settings: dict[str, Any]) -> None: ...

    def assign(self, partitions: list[TopicPartition]) -> None:
        assert [one.partition for one in partitions] == [0, 1, 2]
        FakeConsumer.topics.append(partitions[0].topic)

    def consume(self, _records: int, _timeout_s: float) -> list[Record]:
        return [Record()]

    def get_watermark_offsets(self, _tp: TopicPartition, *, cached: bool) -> tuple[int, int]:
        assert cached
        return 0, 1


def test_three_topics_fill_two_tables_and_gaps_come_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(topic_archive, "Consumer", FakeConsumer)
    FakeConsumer.topics = []
    settings = Settings(lake_dir=tmp_path / "lake")
    names = TopicNames.of(settings.topic_prefix)
    facts = {
        topic: TopicFacts(topic_id=f"id{place}", partitions=3)
        for place, topic in enumerate((names.gaps, names.trades, names.repairs))
    }
    archives = open_archives(
        settings,
        facts,
        trade_decoder(settings),
        DeadLetters(tmp_path, topic="t", connection_id="archive"),
        from_first=False,
    )
    assert FakeConsumer.topics == [names.gaps, names.trades, names.repairs]
    for one in archives:
        one.poll(0.0)
    assert [one.due for one in archives] == [True, True, False], "the past comes in whole pages"
    catalog = open_catalog(lake_dir=tmp_path / "lake")
    assert require_table(catalog, "gaps").current_snapshot() is None
    assert require_table(catalog, "trades").current_snapshot() is None


def test_a_registry_that_knows_nothing_makes_no_dead_letters(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Registry, "schema_text", lambda *_: None)
    monkeypatch.setattr(Registry, "latest", lambda *_: None)
    decoder = trade_decoder(Settings())
    with pytest.raises(RetryError, match=r"no schema of market\.crypto\.trades\.binance-value"):
        decoder.decode([b"\x00\x00\x00\x00\x01body"], Coverage())
    monkeypatch.setattr(Registry, "latest", lambda *_: "a schema")
    (bad,) = decoder.decode([b"\x00\x00\x00\x00\x01body"], Coverage()).undecodable
    assert "unknown" in bad.error
