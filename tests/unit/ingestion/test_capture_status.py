"""A capture's own account, over real legs, tapes and silences without sockets or Kafka."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from k2.binance.leg import Leg, LegLimits
from k2.ingestion.capture_status import FRESH_S, CaptureStatus, leg_state
from k2.ingestion.clock import Offset
from k2.ingestion.health import Health, LatencyHealth
from k2.ingestion.legs import LegFigures
from k2.ingestion.looks import Dependency
from k2.ingestion.membership import Wish
from k2.ingestion.memory_trail import MemoryTrail
from k2.ingestion.shard import Role
from k2.kafka.position import OpenGap
from k2.market import IdRange, StreamKind
from k2.observability import metrics
from k2.observability.memory import MemoryUse
from k2.settings import Settings
from k2.tape.silence import Silence
from unit.binance.leg_world import LegWorld
from unit.ingestion.shard_world import UPTIME_S, ShardWorld, beside, virtual_host, virtually
from unit.trades import trade


class StatusWorld:
    """A status and what it tells of. Make it inside the running loop."""

    def __init__(self, *, legs: str = "ab") -> None:
        self.stopped_s = 0.0
        """How long the process was stopped: its clock goes on, its loop does not."""
        host = virtual_host()
        self.host = host._replace(monotonic_s=lambda: host.monotonic_s() + self.stopped_s)
        self.stop = asyncio.Event()
        self.kafka = Dependency("kafka:9092", host=self.host)
        self.registry = Dependency("http://registry:8081", host=self.host)
        self.status = CaptureStatus(
            Settings(),
            kafka=self.kafka,
            registry=self.registry,
            lake=None,
            memory=MemoryTrail(read=lambda: MemoryUse(80 << 20, 0), leak_score=lambda: 0.0),
            stop=self.stop,
            host=self.host,
        )
        self.shards = ShardWorld()
        self.legs = [
            LegWorld(
                Leg(
                    *(name, ["BTCUSDT"], StreamKind.AGG_TRADE, LegLimits()),
                    first_age_s=7200.0,
                    draw=lambda: 0.5,
                ),
                now_s=UPTIME_S,
            )
            for name in legs
        ]
        self.figures = {"a": LegFigures(first=70, copies=30, lag_s=0.0123456789)}
        self.figures["b"] = LegFigures(first=30)
        self.live = False
        self.silence = Silence(self.host.monotonic_s())
        self.healing: dict[str, float] = {}
        self.told: list[int] = []
        outer = self

        class Legs:
            def __init__(self) -> None:
                self.feeds = [SimpleNamespace(leg=one.leg) for one in outer.legs]
                self.figures = outer.figures

            @property
            def live(self) -> bool:
                return outer.live

            def figures_of(self, leg: Leg) -> LegFigures:
                return outer.figures[leg.name[0]]

        class Intake:
            """Every trade a shard heard came as a frame."""

            def __init__(self) -> None:
                self.silences = {"BTCUSDT": outer.silence}
                self.first = lambda one, _shard: outer.told.append(one.source_id)

            @property
            def frames(self) -> int:
                return outer.shards.shard.heard

            def kinds(self) -> dict[str, int]:
                return {"trade": self.frames}

        self.capture: Any = SimpleNamespace(
            shards=[self.shards.shard],
            legs=Legs(),
            membership=SimpleNamespace(wish=Wish.AUTO, member=True),
            comparing={},
            duties=SimpleNamespace(healing=self.healing),
            intake=Intake(),
        )

    def start(self) -> None:
        """Kafka and registry answer, the capture is there."""
        self.kafka.saw(None)
        self.registry.saw(None)
        self.status.tell_of(self.capture)

    def connect(self) -> None:
        """Every leg is live."""
        for one in self.legs:
            one.tick()
            one.make_live(one.opening[0])
        self.live = True

    async def health(self) -> Health:
        """Return what is said a moment later, as a client reads it."""
        await asyncio.sleep(2 * FRESH_S)
        return msgspec.json.decode(msgspec.json.encode(self.status.health()), type=Health)


def kinds(health: Health) -> list[str]:
    return [problem.what for problem in health.problems]


def test_from_the_first_moment_it_says_what_the_start_waits_for() -> None:
    async def story() -> None:
        world = StatusWorld()
        found = await world.health()
        assert (found.status, found.phase, found.ready) == ("unhealthy", "starting", False)
        assert found.connection_state == "CONNECTING"
        assert found.symbols == ["BNBUSDT", "BTCUSDT", "ETHUSDT"]
        assert found.problems[0].text == "Not recording yet: waits for Kafka at kafka:9092."
        world.kafka.saw(None)
        assert "schema registry" in (await world.health()).problems[0].text
        world.registry.saw(None)
        world.capture.legs.feeds = []
        world.status.tell_of(world.capture)
        assert (await world.health()).problems[0].text.endswith("waits for the exchange.")
        assert not world.status.started

    virtually(story())


def test_the_contracts_fields_are_there_with_role_shards_and_legs_beside_them() -> None:
    async def story() -> None:
        world = StatusWorld()
        world.start()
        world.connect()
        await asyncio.sleep(10)
        found = msgspec.json.decode(msgspec.json.encode(await world.health()))
        assert (found["status"], found["connection_state"]) == ("healthy", "CONNECTED")
        assert found["symbols"] == ["BTCUSDT"]
        assert (found["uptime_seconds"], found["messages_received"]) == (10.4, 100)
        assert (found["role"], found["member"], found["ready"]) == ("auto", True, True)
        (shard,) = found["shards"]
        assert (shard["role"], shard["symbols"]) == ("standby", {"BTCUSDT": 4})
        assert (shard["takeovers"], shard["last_takeover_pause_s"]) == (0, None)
        leg = found["legs"][0]
        assert (leg["leg"], leg["live"], leg["state"]) == ("a", True, "live")
        assert (leg["first_copies"], leg["copies"], leg["lag_s"]) == (70, 30, 0.012346)
        assert leg["age_s"] == pytest.approx(10.4, abs=0.5)
        assert found["rotation"]["leg"] == "a"
        assert found["rotation"]["in_s"] == pytest.approx(7200 * 0.95 - 10, abs=1)

    virtually(story())


def test_the_connection_state_is_right_from_dialling_to_the_end() -> None:
    async def story() -> None:
        world = StatusWorld(legs="a")
        (leg,) = world.legs
        world.start()

        async def state() -> str:
            return (await world.health()).connection_state

        assert (await state(), leg_state(leg.leg)) == ("DISCONNECTED", "waiting")
        leg.tick()
        assert (await state(), leg_state(leg.leg)) == ("CONNECTING", "connecting")
        leg.accept(leg.opening[0])
        assert (await state(), leg_state(leg.leg)) == ("CONNECTING", "connecting")
        while leg.requests[leg.open[0]]:
            leg.answer(leg.open[0])
        world.live = True
        assert (await state(), leg_state(leg.leg)) == ("CONNECTED", "live")
        leg.leg.rotate("manual_rotation", leg.now_s)
        leg.tick()
        assert (await state(), leg_state(leg.leg)) == ("ROTATING", "rotating")
        assert (await world.health()).rotation.under_way == ["a"]
        leg.make_live(leg.opening[0])
        leg.run(1)
        leg.end(leg.open[0])
        assert (await state(), leg_state(leg.leg)) == ("CONNECTED", "live")
        world.live = False
        leg.end(leg.open[0])
        leg.leg.retry_at_s = leg.now_s + 30
        leg.leg.newcomer = None
        found = await world.health()
        assert (found.connection_state, leg_state(leg.leg)) == ("DISCONNECTED", "waiting")
        again_in_s = leg.leg.retry_at_s - world.host.monotonic_s()
        assert found.legs[0].retry_in_s == pytest.approx(again_in_s, abs=0.1)
        assert found.status == "unhealthy"
        assert kinds(found) == ["not_connected"]

    virtually(story())


def test_one_leg_down_is_degraded_and_named() -> None:
    async def story() -> None:
        world = StatusWorld()
        world.start()
        world.legs[0].tick()
        world.legs[0].make_live(world.legs[0].opening[0])
        world.live = True
        found = await world.health()
        assert (found.status, kinds(found)) == ("degraded", ["leg_down"])
        assert "Leg b" in found.problems[0].text

    virtually(story())


def test_a_hole_opens_is_timed_and_closes() -> None:
    async def story() -> None:
        world = StatusWorld()
        world.start()
        world.connect()
        world.shards.stream(5, 6)
        world.shards.stream(9, 12)
        await world.health()
        await asyncio.sleep(30)
        world.healing["BTCUSDT"] = world.host.monotonic_s()
        found = await world.health()
        hole = found.tapes[0].hole
        assert hole is not None
        assert (hole.first_id, hole.last_id, hole.held, hole.healing) == (7, 8, 4, True)
        assert hole.open_s == pytest.approx(30.4, abs=0.1)
        assert [(one.part, one.ids) for one in found.tapes[0].recent[-2:]] == [
            ("missing", 2),
            ("held", 4),
        ]
        assert found.shards[0].holes == ["BTCUSDT"]
        assert (found.status, kinds(found)) == ("degraded", ["hole"])
        world.shards.stream(7, 8)
        found = await world.health()
        assert (found.status, found.tapes[0].hole, found.shards[0].holes) == ("healthy", None, [])
        world.shards.stream(15, 15)
        hole = (await world.health()).tapes[0].hole
        assert hole is not None
        assert hole.open_s == 0  # a new one

    virtually(story())


def test_a_first_copy_is_shown_and_passed_on() -> None:
    async def story() -> None:
        world = StatusWorld()
        world.start()
        one = trade(7)
        world.capture.intake.first(one, world.shards.shard)
        assert world.told == [7]
        tape = (await world.health()).tapes[0]
        assert (tape.last_price, tape.last_quantity, tape.last_side) == ("1", "1", "BUY")
        assert tape.last_trade_ts_us == one.trade_ts_us

    virtually(story())


def test_a_symbol_silent_for_too_long_is_named_unless_nothing_is_heard_at_all() -> None:
    async def story() -> None:
        world = StatusWorld()
        world.start()
        world.connect()
        for _ in range(30):
            await asyncio.sleep(0.1)
            world.silence.traded(world.host.monotonic_s())
        assert kinds(await world.health()) == []
        await asyncio.sleep(8)
        found = await world.health()
        assert kinds(found) == ["silent"]
        assert (found.tapes[0].silent, found.tapes[0].silent_allowed_s) == (True, 5.0)
        world.live = False
        assert kinds(await world.health()) == ["not_connected"]

    virtually(story())


def test_what_waits_is_told_of_a_writer_only_and_a_writer_that_does_not_commit_is_bad() -> None:
    async def story() -> None:
        world = StatusWorld()
        world.start()
        world.connect()
        world.shards.stream(5, 7)
        assert (await world.health()).shards[0].pending == 0
        await world.shards.shard.take_over()
        found = await world.health()
        assert (found.shards[0].role, found.shards[0].pending) == ("writer", 3)
        assert (found.shards[0].takeovers, found.commits.pending) == (1, 3)
        assert found.shards[0].last_takeover is not None
        assert kinds(found) == []
        await world.shards.write_all()
        await asyncio.sleep(3600)
        world.shards.shard.append(world.shards.shard.tapes["BTCUSDT"].offer(trade(8)))
        assert kinds(await world.health()) == [], "an hour without trades is no hour of waiting"
        await asyncio.sleep(11)
        found = await world.health()
        assert (found.status, kinds(found)) == ("unhealthy", ["commits_stalled"])

    virtually(story())


def test_a_writer_whose_first_commit_never_lands_is_bad() -> None:
    async def story() -> None:
        world = StatusWorld()
        world.start()
        world.connect()
        await world.shards.shard.take_over()
        world.shards.stream(5, 7)
        await asyncio.sleep(11)
        assert kinds(await world.health()) == ["commits_stalled"]

    virtually(story())


def test_a_capture_that_records_no_symbol_says_so_and_names_none() -> None:
    async def story() -> None:
        world = StatusWorld()
        world.start()
        world.connect()
        world.shards.shard.drop("BTCUSDT")
        found = await world.health()
        assert (found.symbols, kinds(found)) == ([], ["nothing_recorded"])

    virtually(story())


def test_a_shard_nobody_writes_is_named_by_its_standby_while_trades_arrive() -> None:
    async def story() -> None:
        world = StatusWorld()
        world.start()
        world.connect()
        for second in range(20):
            world.shards.stream(5 + second, 5 + second)
            world.status.sample()
            await asyncio.sleep(1)
        assert kinds(await world.health()) == ["nobody_writes"]
        world.shards.log.stand_at(20)
        world.shards.follow()
        assert kinds(await world.health()) == []

    virtually(story())


def test_a_take_over_that_does_not_get_through_is_a_problem_of_this_process() -> None:
    async def story() -> None:
        world = StatusWorld()
        world.start()
        world.connect()
        world.shards.shard.role = Role.TAKING_OVER
        for second in range(20):
            if second == 10:
                assert kinds(await world.health()) == []
            world.shards.stream(5 + second, 5 + second)
            world.status.sample()
            await asyncio.sleep(1)
        found = await world.health()
        assert (found.status, kinds(found)) == ("unhealthy", ["takeover_stalled"])

    virtually(story())


def test_open_gaps_and_symbols_without_a_tape_are_told() -> None:
    async def story() -> None:
        world = StatusWorld()
        world.start()
        world.connect()
        position = world.shards.shard.told.position
        gap = OpenGap("BTCUSDT", IdRange(1, 2), world.host.wall_ns() // 1000)
        world.shards.log.say(msgspec.structs.replace(position, open_gaps=(gap,)))
        world.shards.follow()
        world.shards.shard.carry("NEWUSDT")
        found = await world.health()
        (shard,) = found.shards
        assert (shard.open_gaps, shard.symbols) == (1, {"BTCUSDT": 4, "NEWUSDT": None})
        assert [(one.symbol, one.open_gap_ids, one.next_id) for one in found.tapes] == [
            ("BTCUSDT", 2, 5),
            ("NEWUSDT", 0, None),
        ]
        assert kinds(found) == ["gap_open"]

    virtually(story())


def test_ready_is_connected_with_kafka_there_and_the_registry_once_there() -> None:
    async def story() -> None:
        world = StatusWorld()
        assert world.status.not_ready() == [
            "starting",
            "not connected",
            "Kafka cannot be reached",
            "the registry was never reached",
        ]
        world.start()
        assert world.status.not_ready() == ["not connected"]
        world.connect()
        assert world.status.not_ready() == []
        await world.shards.shard.take_over()
        assert world.status.not_ready() == []
        world.registry.saw("cannot be reached")
        assert world.status.not_ready() == []
        assert kinds(await world.health()) == ["registry_away"]
        world.kafka.saw("no answer")
        assert world.status.not_ready() == ["Kafka cannot be reached"]
        found = await world.health()
        assert (found.status, kinds(found)) == ("unhealthy", ["kafka_away", "registry_away"])
        world.kafka.saw(None)
        world.stop.set()
        assert world.status.not_ready() == ["shutting down"]
        found = await world.health()
        assert (found.phase, found.status) == ("stopping", "degraded")

    virtually(story())


def test_whoever_asks_often_gets_the_same_answer_and_asking_is_cheap() -> None:
    async def story() -> None:
        world = StatusWorld()
        world.start()
        first = world.status.health()
        assert world.status.health() is first
        await asyncio.sleep(2 * FRESH_S)
        assert world.status.health() is not first

    virtually(story())


def test_a_symbol_that_left_leaves_no_trail() -> None:
    async def story() -> None:
        world = StatusWorld()
        world.start()
        world.status.sample()
        assert set(world.status._tapes._trails) == {"BTCUSDT"}
        world.shards.shard.drop("BTCUSDT")
        world.status.sample()
        assert not world.status._tapes._trails

    virtually(story())


def test_no_setting_that_could_be_a_secret_is_told(tmp_path: Path) -> None:
    async def story() -> None:
        world = StatusWorld()
        world.status._settings = Settings(  # type: ignore[call-arg] # names of the runbooks
            KAFKA_SASL_USERNAME="k2", KAFKA_SASL_PASSWORD="canary", K2_DLQ_DIR=str(tmp_path)
        )
        world.start()
        assert b"canary" not in msgspec.json.encode(await world.health())

    virtually(story())


def test_a_latency_below_zero_stands_beside_the_clock_that_explains_it() -> None:
    async def story() -> None:
        world = StatusWorld()
        world.status.sample()
        assert (await world.health()).latency == LatencyHealth(None, None, None, None, None)
        for _ in range(100):
            metrics.exchange_lag.observe(-1.27)
            metrics.message_latency.observe(0.03)
        world.status.clock_is(Offset(-1.3, 0.02))
        await asyncio.sleep(1)
        latency = (await world.health()).latency
        assert latency.exchange_to_us_s == -1.27
        assert (latency.clock_offset_s, latency.clock_uncertainty_s) == (-1.3, 0.02)
        assert (latency.to_commit_s, latency.to_commit_p99_s) == (0.03, 0.05)

    virtually(story())


@pytest.mark.parametrize(("stopped_s", "told"), [(0.0, []), (0.9, []), (3.0, [3.0])])
def test_that_the_process_did_not_run_is_said_once(stopped_s: float, told: list[float]) -> None:
    async def tell() -> None:
        world = StatusWorld()

        async def story() -> None:
            await asyncio.sleep(1.5)
            world.stopped_s = stopped_s
            await asyncio.sleep(5)

        with capture_logs() as lines:
            await beside(world.status.run(), story())
        said = [line["for_s"] for line in lines if line["event"] == "process_did_not_run"]
        assert said == told

    virtually(tell())
