"""The runbook's own lines over dead letters, run by a real shell and jq."""

import json
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from k2.kafka.dead_letters import DeadLetters


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    letters = DeadLetters(
        tmp_path,
        topic="market.crypto.trades.binance",
        connection_id="c",
        utc_now=lambda: datetime(2026, 1, 14, tzinfo=UTC),
    )
    for symbol in ("BTCUSDT", "ETHUSDT", "BTCUSDT"):
        letters.write(
            original={"s": symbol, "p": "x"}, error="e", error_type="invalid_field", symbol=symbol
        )
    letters.write(original={"_raw": "{oops\n"}, error="e", error_type="parse", symbol=None)
    letters.close()
    return tmp_path


def shell(directory: Path, line: str) -> list[str]:
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", line.replace("/tmp/dlq", str(directory))],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


def test_the_files_are_listed(directory: Path) -> None:
    (line,) = shell(directory, "ls -la /tmp/dlq/binance-*.jsonl")
    assert line.endswith("binance-20260114.jsonl")


def test_every_letter_is_printed(directory: Path) -> None:
    printed = "\n".join(shell(directory, "cat /tmp/dlq/binance-20260114.jsonl | jq '.'"))
    assert printed.count('"original_message": {') == 4


def test_the_first_messages_are_printed(directory: Path) -> None:
    line = "cat /tmp/dlq/binance-20260114.jsonl | jq -r -c '.original_message' | head -5"
    messages = [json.loads(text) for text in shell(directory, line)]
    assert messages[0] == {"s": "BTCUSDT", "p": "x"}
    assert messages[3] == {"_raw": "{oops\n"}
    assert shell(directory, line.replace(" -c", ""))[0] == "{", "the runbook's own form is indented"


def test_letters_are_counted_by_symbol(directory: Path) -> None:
    line = "cat /tmp/dlq/binance-20260114.jsonl | jq -r '.original_message.s' | sort | uniq -c"
    counted = {tuple(text.split()) for text in shell(directory, line)}
    assert counted == {("2", "BTCUSDT"), ("1", "ETHUSDT"), ("1", "null")}
