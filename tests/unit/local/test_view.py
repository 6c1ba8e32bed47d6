import io
import re
import time
from collections import deque
from typing import Any, cast

import pytest
from rich.console import Console

from k2.local.view import SymbolView, Watcher, line, render

HOLE = "BTCUSDT: 5 ids are missing (3 to 7) and 90 trades wait behind them for 40 s; being fetched."
KAFKA = "Kafka at 127.0.0.1:9092 has been away for 12 s (no answer)."


class StillWatcher:
    """What a watcher knows of a tape that stands still."""

    def __init__(self, *views: SymbolView, began_s: float) -> None:
        self.symbols = {view.symbol: view for view in views}
        self.began_s = began_s


@pytest.fixture
def watcher() -> Watcher:
    """Return a watcher that saw the last trade of BTCUSDT 40 s ago, and none of ETHUSDT."""
    now_s = time.time()
    stuck = SymbolView("BTCUSDT", "93707.87", 7, 3, 3, lake_last_id=7)
    stuck.newest_recv_s = now_s - 40
    stuck.unarchived = deque([(7, now_s - 40)])
    still = StillWatcher(stuck, SymbolView("ETHUSDT"), began_s=now_s - 60)
    return cast("Watcher", still)


def shown(watcher: Watcher, **how: Any) -> str:
    out = io.StringIO()
    console = Console(file=out, width=200)
    console.print(render(watcher, title="k2", places={"lake": "var/lake"}, **how))
    return out.getvalue()


def test_a_tape_that_stands_still_shows_the_age_of_its_newest_trade(watcher: Watcher) -> None:
    for text in (shown(watcher, problems=[]), line(watcher, problems=[])):
        assert re.search(r"40\.\d s ago", text)
        assert "none for 60 s" in text
    assert "0.0 s behind" in line(watcher, problems=[])


def test_what_is_wrong_is_told_the_worst_first(watcher: Watcher) -> None:
    text = shown(watcher, problems=[KAFKA, HOLE, "third", "fourth"])
    assert f"! {KAFKA}" in text
    assert f"! {HOLE}" in text
    assert "third" in text
    assert "fourth" not in text
    assert line(watcher, problems=[KAFKA, HOLE]).endswith(f" | ! {KAFKA}")
    assert "!" not in line(watcher, problems=[])
