import json
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from k2.errors import RejectError
from k2.ingestion.rejects import LOGGED_PER_MINUTE, Rejects
from k2.kafka.dead_letters import DeadLetters
from k2.market import BadRow
from k2.observability import metrics
from unit.trades import trade


class Scene:
    def __init__(self, directory: Path) -> None:
        self.now_s = 1000.0
        self.directory = directory
        self.dead_letters = DeadLetters(directory, topic="t", connection_id="c")
        self.rejects = Rejects(self.dead_letters, monotonic_s=lambda: self.now_s)

    @property
    def letters(self) -> list[dict[str, Any]]:
        assert self.dead_letters.flush()
        (path,) = self.directory.glob("*.jsonl")
        return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def test_a_frame_is_kept_as_the_event_it_wraps_and_its_symbol_is_told(scene: Scene) -> None:
    why = RejectError("Invalid field: p", error_type="invalid_field")
    wrapped = b'{"stream":"btcusdt@aggTrade","data":{"s":"BTCUSDT","p":"x"}}'
    assert scene.rejects.frame(wrapped, why) == "BTCUSDT"
    assert scene.rejects.frame(b'{"s":7}', why) is None
    assert scene.rejects.frame(b"{oops", RejectError("Failed to parse", error_type="parse")) is None
    first, second, third = scene.letters
    assert first["original_message"] == {"s": "BTCUSDT", "p": "x"}
    assert (first["symbol"], second["symbol"], third["symbol"]) == ("BTCUSDT", None, None)
    assert third["original_message"] == {"_raw": "{oops"}
    assert [one["error_type"] for one in scene.letters] == ["invalid_field"] * 2 + ["parse"]


def test_rows_and_absurd_trades_are_kept_with_their_symbol(scene: Scene) -> None:
    scene.rejects.row(BadRow(7, "void", "voided", {"a": 7, "s": "BTCUSDT"}))
    scene.rejects.row(BadRow(8, "parse", "no JSON", {"_raw": "{"}))
    scene.rejects.trade(trade(9, "ETHUSDT"))
    assert [one["symbol"] for one in scene.letters] == ["BTCUSDT", None, "ETHUSDT"]
    assert scene.letters[2]["original_message"]["source_id"] == 9


def test_each_is_counted_however_few_are_logged(scene: Scene) -> None:
    why = RejectError("Failed to parse message: x", error_type="parse")
    counter = metrics.message_errors.labels("parse")
    before = counter.value
    with capture_logs() as logs:
        for _ in range(5_000):
            scene.rejects.frame(b"{", why)
        assert len(logs) == LOGGED_PER_MINUTE
        assert logs[0]["event"] == "Failed to parse message: x", "what the runbook greps"
        scene.now_s += 60
        scene.rejects.frame(b"{", why)
    assert [log["event"] for log in logs[LOGGED_PER_MINUTE:]] == [
        "rejects_not_logged",
        "Failed to parse message: x",
    ]
    assert logs[LOGGED_PER_MINUTE]["count"] == 5_000 - LOGGED_PER_MINUTE
    assert counter.value - before == 5_001
    assert len(scene.letters) + scene.dead_letters.failed == 5_001
