from typing import Any, cast

import pytest

from k2.ingestion import archive
from k2.ingestion.archive import TopicArchive


class FakeTopic:
    def __init__(self, name: str, told: list[str], *, taken: bool) -> None:
        self.name, self.told, self.taken = name, told, taken

    def flush(self) -> bool:
        self.told.append(self.name)
        return self.taken


@pytest.mark.parametrize(("taken", "flushed"), [(True, ["gaps", "trades"]), (False, ["gaps"])])
def test_trades_wait_while_the_gaps_before_them_cannot_be_written(
    taken: bool, flushed: list[str]
) -> None:
    told: list[str] = []
    topics: Any = [FakeTopic("gaps", told, taken=taken), FakeTopic("trades", told, taken=True)]
    archive._flush(cast("list[TopicArchive]", topics))
    assert told == flushed
