from typing import Any

import pytest

from k2.ingestion import archive


class FakeTopic:
    def __init__(self, name: str, told: list[str], *, taken: bool) -> None:
        self.name, self.told, self.taken = name, told, taken

    def flush(self) -> bool:
        self.told.append(self.name)
        return self.taken

    def poll(self, _timeout_s: float) -> int:
        self.told.append(self.name)
        return 1


NAMES = ("gaps", "trades", "repairs")


@pytest.mark.parametrize("refused", ["gaps", "trades", "repairs"])
def test_what_follows_waits_while_what_is_before_it_cannot_be_written(refused: str) -> None:
    told: list[str] = []
    topics: Any = [FakeTopic(name, told, taken=name != refused) for name in NAMES]
    archive._flush(topics)
    assert told == list(NAMES[: NAMES.index(refused) + 1])


def test_gaps_are_polled_last_so_that_no_declaration_is_behind_what_it_explains() -> None:
    told: list[str] = []
    topics: Any = [FakeTopic(name, told, taken=True) for name in NAMES]
    assert archive._poll(topics) == 3
    assert told == ["repairs", "trades", "gaps"]
