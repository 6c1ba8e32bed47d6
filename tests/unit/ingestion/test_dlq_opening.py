"""How a process's dead letters are counted."""

from pathlib import Path

import pytest

from k2.ingestion.dlq_opening import open_dead_letters
from k2.kafka import dead_letters
from k2.local.ports import pick_free
from k2.observability import metrics
from k2.settings import Settings

LETTERS = 3


def _on_the_page(series: str) -> float:
    return sum(
        sample.value
        for family in metrics.process.collect()
        for sample in family.samples
        if sample.name == series
    )


def test_letters_kafka_was_not_there_for_are_on_the_page_though_they_are_in_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_letters, "CLOSE_TIMEOUT_S", 0.1)
    before = _on_the_page("k2_dlq_not_sent_total"), _on_the_page("binance_dlq_records_total")
    (port,) = pick_free(1)
    settings = Settings(kafka_bootstrap=f"127.0.0.1:{port}", dead_letter_dir=tmp_path)
    letters = open_dead_letters(settings, connection_id="a")
    for _ in range(LETTERS):
        letters.write(original={}, error="why", error_type="invalid_field", symbol="BTCUSDT")
    assert letters.flush()
    assert _on_the_page("k2_dlq_not_sent_total") == before[0], "Kafka may still come"
    letters.close()
    assert _on_the_page("k2_dlq_not_sent_total") == before[0] + LETTERS
    assert _on_the_page("binance_dlq_records_total") == before[1] + LETTERS
