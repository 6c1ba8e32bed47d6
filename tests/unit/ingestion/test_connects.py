import asyncio
import json
from pathlib import Path

import pytest

from k2.binance.limits import CONNECTS_WINDOW_S
from k2.ingestion.connects import ConnectBudget
from k2.ingestion.host import MACHINE, Host

SHARE = 3 / 300
"""Three attempts in five minutes."""


class _Clock:
    def __init__(self) -> None:
        self.wall_s = 1_767_225_600.0

    @property
    def host(self) -> Host:
        return MACHINE._replace(wall_ns=lambda: int(self.wall_s * 1e9))


def _budgets(path: Path, clock: _Clock, *, count: int) -> list[ConnectBudget]:
    return [ConnectBudget(path, share=SHARE, host=clock.host) for _ in range(count)]


async def _take(budget: ConnectBudget, clock: _Clock, monkeypatch: pytest.MonkeyPatch) -> float:
    """Take one attempt on a clock that sleeping moves; returns how long it waited."""
    began_s = clock.wall_s

    async def sleep(seconds: float) -> None:
        assert 0 < seconds <= CONNECTS_WINDOW_S
        clock.wall_s += seconds + 1e-3

    with monkeypatch.context() as patched:
        patched.setattr("k2.ingestion.connects.asyncio.sleep", sleep)
        await budget.take()
    return clock.wall_s - began_s


def test_two_processes_with_one_file_share_one_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, path = _Clock(), tmp_path / "new folder" / "connects.json"

    async def scenario() -> list[float]:
        here, there = _budgets(path, clock, count=2)
        takers = (here, there, here, there, here)
        return [await _take(budget, clock, monkeypatch) for budget in takers]

    waits = asyncio.run(scenario())
    assert waits[:3] == [0, 0, 0]
    assert waits[3] == pytest.approx(CONNECTS_WINDOW_S, abs=0.2)
    assert waits[4] == 0  # the first three count no more


def test_a_restart_begins_with_what_was_used_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, path = _Clock(), tmp_path / "connects.json"

    async def scenario() -> None:
        for _ in range(3):
            (budget,) = _budgets(path, clock, count=1)
            assert await _take(budget, clock, monkeypatch) == 0
            clock.wall_s += 10
        (budget,) = _budgets(path, clock, count=1)
        wait_s = await _take(budget, clock, monkeypatch)
        assert wait_s == pytest.approx(CONNECTS_WINDOW_S - 30, abs=0.2)

    asyncio.run(scenario())


def test_no_window_sees_more_attempts_than_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, path = _Clock(), tmp_path / "connects.json"

    async def scenario() -> list[float]:
        budgets, taken_s = _budgets(path, clock, count=2), list[float]()
        for number in range(20):
            await _take(budgets[number % 2], clock, monkeypatch)
            taken_s.append(clock.wall_s)
            clock.wall_s += number * 7 % 50
        return taken_s

    taken_s = asyncio.run(scenario())
    for at_s in taken_s:
        # The file keeps tenths of a second.
        assert sum(at_s <= other_s < at_s + CONNECTS_WINDOW_S - 0.1 for other_s in taken_s) <= 3
    assert len(json.loads(path.read_text())) <= 3


def test_attempts_at_the_same_time_are_all_counted(tmp_path: Path) -> None:
    clock, path = _Clock(), tmp_path / "connects.json"

    async def scenario() -> None:
        await asyncio.gather(*(budget.take() for budget in _budgets(path, clock, count=3)))

    asyncio.run(scenario())
    assert len(json.loads(path.read_text())) == 3


@pytest.mark.parametrize("damage", [b"", b"[1,", b"{}", b'["x"]', b"\xff\x00", b"[null]"])
def test_a_damaged_file_is_counted_anew(
    damage: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, path = _Clock(), tmp_path / "connects.json"
    path.write_bytes(damage)
    (budget,) = _budgets(path, clock, count=1)
    assert asyncio.run(_take(budget, clock, monkeypatch)) == 0
    assert json.loads(path.read_text()) == [clock.wall_s]


def test_a_path_that_cannot_be_written_keeps_nobody_from_the_exchange_nor_the_limit_from_us(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = _Clock()
    (tmp_path / "a file").write_text("")

    async def scenario() -> None:
        (budget,) = _budgets(tmp_path / "a file" / "connects.json", clock, count=1)
        waits = [await _take(budget, clock, monkeypatch) for _ in range(5)]
        assert waits[:3] == [0, 0, 0]
        assert waits[3] == pytest.approx(CONNECTS_WINDOW_S, abs=0.2)
        assert waits[4] == 0

    asyncio.run(scenario())


def test_a_disk_that_fills_up_and_has_room_again_loses_no_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, path = _Clock(), tmp_path / "connects.json"

    async def scenario() -> None:
        (budget,) = _budgets(path, clock, count=1)
        await _take(budget, clock, monkeypatch)
        before = path.read_bytes()
        in_the_way = tmp_path / "connects.json.new"
        in_the_way.mkdir()
        clock.wall_s += 10
        await _take(budget, clock, monkeypatch)
        assert path.read_bytes() == before, "whoever starts now still counts those"
        in_the_way.rmdir()
        clock.wall_s += 10
        await _take(budget, clock, monkeypatch)
        assert len(json.loads(path.read_text())) == 3
        wait_s = await _take(budget, clock, monkeypatch)
        assert wait_s == pytest.approx(CONNECTS_WINDOW_S - 20, abs=0.2)

    asyncio.run(scenario())


def test_a_clock_set_back_costs_one_window_and_not_the_time_it_was_set_back_by(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, path = _Clock(), tmp_path / "connects.json"

    async def scenario() -> None:
        (budget,) = _budgets(path, clock, count=1)
        for _ in range(3):
            await _take(budget, clock, monkeypatch)
        clock.wall_s -= 86_400
        wait_s = await _take(budget, clock, monkeypatch)
        assert wait_s == pytest.approx(CONNECTS_WINDOW_S, abs=0.2)

    asyncio.run(scenario())


def test_a_clock_set_back_counts_each_attempt_once_whoever_knows_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, path = _Clock(), tmp_path / "connects.json"

    async def scenario() -> None:
        budgets = [ConnectBudget(path, share=0.5, host=clock.host) for _ in range(3)]
        for number in range(30):
            clock.wall_s += 0.5
            await _take(budgets[number % 3], clock, monkeypatch)
        clock.wall_s -= 120
        for budget in budgets:
            clock.wall_s += 1
            await _take(budget, clock, monkeypatch)
        assert len(json.loads(path.read_text())) == 33

    asyncio.run(scenario())


def test_a_clock_set_forward_forgets_what_was_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, path = _Clock(), tmp_path / "connects.json"

    async def scenario() -> None:
        (budget,) = _budgets(path, clock, count=1)
        for _ in range(3):
            await _take(budget, clock, monkeypatch)
        clock.wall_s += 86_400
        assert await _take(budget, clock, monkeypatch) == 0

    asyncio.run(scenario())
    assert json.loads(path.read_text()) == [clock.wall_s]


def test_whoever_waits_can_be_cancelled(tmp_path: Path) -> None:
    clock, path = _Clock(), tmp_path / "connects.json"
    path.write_text(json.dumps([clock.wall_s] * 3))

    async def scenario() -> None:
        (budget,) = _budgets(path, clock, count=1)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await budget.take()

    asyncio.run(scenario())
    assert len(json.loads(path.read_text())) == 3
