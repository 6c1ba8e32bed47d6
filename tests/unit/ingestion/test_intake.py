import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from k2.binance.frames import Reply, ServerShutdown
from k2.binance.leg import MANUAL, Leg, LegLimits, Replaced
from k2.binance.session import Session, SessionLimits
from k2.binance.websocket import ConnectError
from k2.ingestion import ring
from k2.ingestion.intake import Intake
from k2.ingestion.legs import LegFigures
from k2.ingestion.rejects import Rejects
from k2.kafka.dead_letters import DeadLetters
from k2.market import StreamKind, Trade
from k2.observability import metrics
from unit.ingestion.shard_world import ShardWorld, virtual_host, virtually

RECV_NS = 1_767_225_600_200_000_000


class Scene:
    """A shard standing at 100, two legs with a connection each, and who is told."""

    def __init__(self, folder: Path) -> None:
        self.world = ShardWorld(next_id=100)
        self.folder = folder
        self.dead_letters = DeadLetters(folder, topic="t", connection_id="c")
        self.looked: list[str] = []
        self.late_ids: list[int] = []
        self.is_live = False
        self.carried_beside = True
        self.figures = {"a": LegFigures(), "b": LegFigures()}
        self.intake = Intake(
            StreamKind.AGG_TRADE,
            duties=self,  # type: ignore[arg-type] # what an intake uses of Duties
            rejects=Rejects(self.dead_letters),
            live=lambda: self.is_live,
            beside=lambda _: self.carried_beside,
            figures_of=lambda leg: self.figures[leg.name[0]],
            host=virtual_host(),
        )
        self.intake.carry("BTCUSDT", self.world.shard)
        self.a, self.b = self._leg("a"), self._leg("b2")
        limits = SessionLimits()
        self.of_a, self.of_b = (
            Session(["BTCUSDT"], StreamKind.AGG_TRADE, limits) for _ in range(2)
        )

    # Duties.

    def look(self, symbol: str) -> None:
        self.looked.append(symbol)

    def late(self, trade: Trade, _shard: Any) -> None:
        self.late_ids.append(trade.source_id)

    # Frames.

    def on_a(self, source_id: int, *, at_ms: int = 0, **changes: Any) -> Any:
        return self._frame(self.a, self.of_a, source_id, at_ms, changes)

    def on_b(self, source_id: int, *, at_ms: int = 0, **changes: Any) -> Any:
        return self._frame(self.b, self.of_b, source_id, at_ms, changes)

    @property
    def letters(self) -> list[dict[str, Any]]:
        assert self.dead_letters.flush()
        files = sorted(self.folder.glob("*.jsonl"))
        return [json.loads(line) for file in files for line in file.read_text().splitlines()]

    @staticmethod
    def _leg(name: str) -> Leg:
        return Leg(
            name, ["BTCUSDT"], StreamKind.AGG_TRADE, LegLimits(), first_age_s=1, draw=lambda: 0.5
        )

    def _frame(
        self, leg: Leg, session: Session, source_id: int, at_ms: int, changes: dict[str, Any]
    ) -> Any:
        event = {
            "e": "aggTrade",
            "E": 1_767_225_600_123_456,
            "s": "BTCUSDT",
            "a": source_id,
            "p": "1.0",
            "q": "2.0",
            "f": source_id,
            "l": source_id,
            "T": 1_767_225_600_122_000,
            "m": True,
            **changes,
        }
        payload = json.dumps(event).encode()
        return self.intake.frame(leg, session, payload, RECV_NS + at_ms * 1_000_000)


def test_the_first_copy_wins_and_each_leg_is_credited(tmp_path: Path) -> None:
    async def story() -> None:
        scene = Scene(tmp_path)
        scene.on_a(100)
        scene.on_b(100, at_ms=30)
        scene.on_b(101)
        scene.on_a(101, at_ms=10)
        scene.on_a(102)
        figures = scene.figures
        assert (figures["a"].first, figures["a"].copies) == (2, 1)
        assert (figures["b"].first, figures["b"].copies) == (1, 1)
        assert figures["b"].lag_s == pytest.approx(0.030 / 100)
        assert scene.world.shard.pending == 3
        assert scene.late_ids == [100, 101]
        assert scene.intake.heard == {"BTCUSDT": 102}
        assert (scene.of_a.last_ids, scene.of_b.last_ids) == (
            {"BTCUSDT": 102},
            {"BTCUSDT": 101},
        )

    virtually(story())


def test_a_copy_of_an_older_trade_counts_as_a_copy_but_not_as_lag(tmp_path: Path) -> None:
    async def story() -> None:
        scene = Scene(tmp_path)
        scene.on_a(100)
        scene.on_a(101)
        scene.on_b(100, at_ms=9_000)
        assert scene.figures["b"].lag_s == 0
        assert scene.late_ids == [100]

    virtually(story())


def test_a_held_trade_is_not_believed_to_be_published_yet(tmp_path: Path) -> None:
    async def story() -> None:
        scene = Scene(tmp_path)
        scene.on_a(10**15)
        assert scene.intake.heard == {}
        assert scene.world.holes == ["BTCUSDT"]
        scene.on_b(100)
        assert scene.intake.heard == {"BTCUSDT": 100}

    virtually(story())


def test_a_trade_there_is_no_room_for_is_counted_and_not_heard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ring, "RING_MAX", 1)
    counter = metrics.let_go.labels("BTCUSDT")
    before = counter.value

    async def story() -> None:
        scene = Scene(tmp_path)
        await scene.world.shard.take_over()
        scene.on_a(100)
        scene.on_a(101)
        scene.on_b(101)
        assert scene.intake.heard == {"BTCUSDT": 100}
        assert counter.value - before == 2
        assert scene.figures["a"].first == 1
        assert scene.world.losses == ["BTCUSDT"] * 2

    virtually(story())


def test_a_bad_frame_costs_itself_a_letter_and_a_look(tmp_path: Path) -> None:
    async def story() -> None:
        scene = Scene(tmp_path)
        assert scene.on_a(100, p="-1") is None
        assert scene.intake.frame(scene.a, scene.of_a, b"{", RECV_NS) is None
        scene.on_a(101)
        assert scene.looked == ["BTCUSDT"]
        assert [letter["symbol"] for letter in scene.letters] == ["BTCUSDT", None]
        assert scene.world.shard.tapes["BTCUSDT"].held == 1

    virtually(story())


def test_a_symbol_nobody_asked_for_is_a_mistake_and_one_given_up_is_not(tmp_path: Path) -> None:
    async def story() -> None:
        scene = Scene(tmp_path)
        scene.on_a(1, s="ETHUSDT")
        assert [letter["symbol"] for letter in scene.letters] == ["ETHUSDT"]
        scene.intake.drop("BTCUSDT")
        scene.on_a(100)
        assert (len(scene.letters), scene.world.shard.pending) == (1, 0)
        assert scene.intake.symbols == []
        scene.intake.carry("BTCUSDT", scene.world.shard)
        scene.on_a(100)
        assert scene.world.shard.pending == 1

    virtually(story())


def test_what_is_no_trade_is_given_back_to_the_feed(tmp_path: Path) -> None:
    async def story() -> None:
        scene = Scene(tmp_path)
        frame = scene.intake.frame
        reply = frame(scene.a, scene.of_a, b'{"result":null,"id":3}', RECV_NS)
        assert reply == Reply(3, None)
        leaving = b'{"e":"serverShutdown","E":1767225600123456}'
        assert isinstance(frame(scene.a, scene.of_a, leaving, RECV_NS), ServerShutdown)
        assert scene.letters == []

    virtually(story())


def test_everything_is_looked_for_when_hearing_begins_and_not_with_every_newcomer(
    tmp_path: Path,
) -> None:
    async def story() -> None:
        scene = Scene(tmp_path)
        intake = scene.intake
        intake.live(scene.a, scene.of_a)
        assert (intake.heard_since_s, scene.looked) == (None, []), "not every symbol is heard"
        await asyncio.sleep(3)
        scene.is_live = True
        scene.intake.live(scene.a, scene.of_a)
        since_s = intake.heard_since_s
        assert since_s == virtual_host().monotonic_s()
        assert scene.looked == ["BTCUSDT"]
        await asyncio.sleep(3)
        intake.live(scene.b, scene.of_b)
        intake.disconnected(scene.b, scene.of_b, "connection_closed")
        assert (intake.heard_since_s, len(scene.looked)) == (since_s, 1), "one leg went on"
        scene.is_live = False
        intake.disconnected(scene.a, scene.of_a, "connection_closed")
        assert intake.heard_since_s is None
        scene.is_live = True
        intake.live(scene.b, scene.of_b)
        assert len(scene.looked) == 2

    virtually(story())


def test_every_frame_is_counted_as_what_it_was(tmp_path: Path) -> None:
    async def story() -> None:
        scene = Scene(tmp_path)
        intake = scene.intake
        scene.on_a(100)
        scene.on_b(100)
        scene.intake.frame(scene.a, scene.of_a, b'{"result":null,"id":1}', 0)
        scene.intake.frame(scene.a, scene.of_a, b"nonsense", 0)
        scene.intake.drop("BTCUSDT")
        scene.on_a(101)
        assert intake.kinds() == {"trade": 2, "control": 1, "rejected": 1, "retired": 1}
        assert intake.frames == 5
        assert intake.copies == 1
        assert scene.world.shard.heard == 2, "each frame that was a trade was put to a tape"

    virtually(story())


def test_the_exchanges_lag_is_shown_as_it_is_below_zero_too(tmp_path: Path) -> None:
    async def story() -> None:
        scene = Scene(tmp_path)
        lag = metrics.exchange_lag.labels()
        count, total = lag.count, lag.total
        scene.on_a(100)
        ordinary_s = lag.total - total
        assert 0 < ordinary_s < 1
        scene.on_a(101, at_ms=-2_000)
        assert lag.count - count == 2
        assert lag.total - total == pytest.approx(2 * ordinary_s - 2)
        scene.on_b(101)
        assert lag.count - count == 2, "a copy's lag is that of its leg"

    virtually(story())


def test_a_connection_need_not_deliver_what_was_published_before_it_was_live(
    tmp_path: Path,
) -> None:
    async def story() -> None:
        scene = Scene(tmp_path)
        scene.on_a(100)
        assert scene.of_b.lacks("BTCUSDT", 100)
        scene.intake.live(scene.b, scene.of_b)
        assert not scene.of_b.lacks("BTCUSDT", 100)
        assert scene.of_b.lacks("BTCUSDT", 101)

    virtually(story())


def test_ends_and_replacements_are_counted_by_reason(tmp_path: Path) -> None:
    async def story() -> None:
        scene = Scene(tmp_path)
        intake = scene.intake
        lost = metrics.reconnections.labels("connection_closed")
        rotated = metrics.rotations.labels(MANUAL, "a")
        silent = metrics.reconnections.labels("pong_timeout")
        unanswered = metrics.pong_timeouts.labels()
        nameless = metrics.connection_errors.labels("dns")
        broken = metrics.connection_errors.labels("protocol")
        counters = (lost, rotated, silent, unanswered, nameless, broken)
        before = [counter.value for counter in counters]
        intake.replaced(scene.a, Replaced(MANUAL, overlapped=True))
        intake.replaced(scene.a, Replaced("pong_timeout", overlapped=True))
        intake.disconnected(scene.a, scene.of_a, "connection_closed")
        intake.disconnected(scene.a, scene.of_a, "shutdown")
        scene.of_b.replaced = True
        intake.disconnected(scene.b, scene.of_b, "connection_closed")
        intake.unreachable(scene.a, ConnectError("nobody there", url="ws://a", kind="dns"))
        intake.disconnected(scene.a, scene.of_a, "websocket_error")
        after = [counter.value for counter in counters]
        assert [now - was for now, was in zip(after, before, strict=True)] == [1, 1, 1, 1, 1, 1]

    virtually(story())


def test_a_symbols_rhythm_is_that_of_first_copies(tmp_path: Path) -> None:
    async def story() -> None:
        scene = Scene(tmp_path)
        began_s = virtual_host().monotonic_s()
        await asyncio.sleep(2)
        scene.on_a(100)
        await asyncio.sleep(2)
        scene.on_b(100)
        assert scene.intake.silences["BTCUSDT"].last_s == pytest.approx(began_s + 2)

    virtually(story())
