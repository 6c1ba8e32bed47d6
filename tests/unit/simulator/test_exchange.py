"""The exchange over several lives: restarts, recordings, refusals."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from k2.errors import StopError
from k2.market import StreamKind
from k2.simulator import Exchange, ExchangeConfig, Ledger, TapeRow
from k2.simulator.exchange import parse_speed
from k2.simulator.rows import parse_e8

AGG, FILL = StreamKind.AGG_TRADE, StreamKind.TRADE
WaitUntil = Callable[..., Awaitable[None]]


def _whole(ledger: Ledger, symbol: str, kind: StreamKind) -> bool:
    ids = ledger.range(symbol, kind)
    return ids is not None and ledger.count(symbol, kind) == len(ids)


def test_a_restart_on_the_same_directory_goes_on_with_the_next_ids(
    tmp_path: Path, wait_until: WaitUntil
) -> None:
    async def live(lives: int) -> None:
        config = ExchangeConfig(
            symbols=("BTCUSDT", "SHIBUSDT"), rate=2000, tick_s=0.005, data_dir=tmp_path
        )
        async with Exchange(config) as exchange:
            await wait_until(lambda: exchange.ledger.count("SHIBUSDT", FILL) >= 50 * lives)

    for lives in (1, 2, 3):
        asyncio.run(live(lives))
    with Ledger.read(tmp_path) as ledger:
        for symbol in ("BTCUSDT", "SHIBUSDT"):
            assert _whole(ledger, symbol, AGG)
            assert _whole(ledger, symbol, FILL)
            rows = ledger.rows(symbol, AGG, 0, 10**6)
            times = [row.trade_ts_us for row in rows]
            assert times == sorted(times)
            for before, after in pairwise(rows):
                assert after.first_trade_id == before.last_trade_id + 1


def test_a_row_is_in_the_ledger_for_others_to_see_before_it_is_published(
    tmp_path: Path, wait_until: WaitUntil, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked: list[int] = []

    async def scenario() -> None:
        config = ExchangeConfig(symbols=("BTCUSDT",), rate=2000, data_dir=tmp_path)
        async with Exchange(config) as exchange:
            with Ledger.read(tmp_path) as reader:

                def publish(rows: Iterable[TapeRow]) -> None:
                    for row in rows:
                        assert reader.rows("BTCUSDT", row.kind, row.row_id, 1) == [row]
                        checked.append(row.row_id)

                monkeypatch.setattr(exchange.streams, "publish", publish)
                await wait_until(lambda: len(checked) > 100)

    asyncio.run(scenario())


def test_trade_times_rise_even_if_the_clock_was_set_back_before_a_restart(
    tmp_path: Path, wait_until: WaitUntil
) -> None:
    ahead_us = time.time_ns() // 1000 + 3600 * 10**6
    last = TapeRow(
        "BTCUSDT", AGG, 9, "90000.00000000", "1.00000000", 5, 5, ahead_us, ahead_us, True
    )
    with Ledger.write(tmp_path) as ledger:
        ledger.append([last, msgspec.structs.replace(last, kind=FILL, row_id=5)])

    async def scenario() -> None:
        config = ExchangeConfig(symbols=("BTCUSDT",), rate=2000, data_dir=tmp_path)
        async with Exchange(config) as exchange:
            await wait_until(lambda: exchange.ledger.count("BTCUSDT", AGG) >= 10)
            first = exchange.ledger.rows("BTCUSDT", AGG, 10, 1)[0]
            assert first.trade_ts_us > ahead_us
            assert first.first_trade_id == 6
            # It goes on from the price it had.
            assert abs(parse_e8(first.price) - parse_e8(last.price)) < parse_e8("10")

    asyncio.run(scenario())


def test_the_address_is_written_for_others_and_removed_at_the_end(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Exchange(ExchangeConfig(data_dir=tmp_path, rate=0)) as exchange:
            address = json.loads((tmp_path / "address.json").read_text())
            assert address["rest_url"] == exchange.rest_url
            assert address["ws_url"] == exchange.ws_url
            assert address["port"] == exchange.port

    asyncio.run(scenario())
    assert not (tmp_path / "address.json").exists()


def _recording(path: Path, *, fills: int) -> Path:
    lines = []
    for n in range(fills):
        event = {
            "e": "trade",
            "E": 1723161255001 + n,
            "s": "BTCUSDT",
            "t": 100 + n,
            "p": "61837.63000000",
            "q": "0.02000000",
            "T": 1723161255000 + n // 4,
            "m": True,
            "M": True,
        }
        frame = json.dumps({"stream": "btcusdt@trade", "data": event})
        lines.append(f"{(1723161254000 + 10 * n) * 10**6} {frame}\n")
    path.write_text("".join(lines))
    return path


async def _read(exchange: Exchange, *, events: int) -> list[dict[str, Any]]:
    async with (
        asyncio.timeout(20),
        aiohttp.ClientSession() as session,
        session.ws_connect(f"{exchange.ws_url}/ws/btcusdt@trade/btcusdt@aggTrade") as connection,
    ):
        return [json.loads((await connection.receive()).data) for _ in range(events)]


def test_a_recording_waits_for_the_first_subscription_to_one_of_its_streams(
    tmp_path: Path, wait_until: WaitUntil
) -> None:
    async def scenario() -> None:
        tape = _recording(tmp_path / "tape.ndjson", fills=100)
        config = ExchangeConfig(tape=tape, speed=20, tick_s=0.005)
        async with Exchange(config) as exchange, aiohttp.ClientSession() as session:
            async with session.ws_connect(f"{exchange.ws_url}/ws/ethusdt@trade") as other:
                for _ in range(3):
                    await other.send_json({"method": "LIST_SUBSCRIPTIONS", "id": 1})
                    await other.receive()
                assert exchange.newest() == {}
            events = await _read(exchange, events=125)
            assert [e["t"] for e in events if e["e"] == "trade"] == list(range(100, 200))
            assert [e["a"] for e in events if e["e"] == "aggTrade"] == list(range(25))
            await exchange.wait_tape_finished()
            assert exchange.tape_finished
            # It stays up, serving what was played.
            url = f"{exchange.rest_url}/api/v3/historicalTrades?symbol=BTCUSDT"
            async with session.get(url) as response:
                assert len(await response.json()) == 100

    asyncio.run(scenario())


def test_a_restarted_recording_goes_on_after_the_last_row_played(
    tmp_path: Path, wait_until: WaitUntil
) -> None:
    tape = _recording(tmp_path / "tape.ndjson", fills=200)
    data_dir = tmp_path / "data"

    async def first_life() -> None:
        config = ExchangeConfig(tape=tape, speed=10, tick_s=0.005, data_dir=data_dir)
        async with Exchange(config) as exchange:
            await _read(exchange, events=40)

    async def second_life() -> None:
        with Ledger.read(data_dir) as ledger:
            played = ledger.range("BTCUSDT", FILL)
        assert played is not None
        assert played.last_id < 299
        config = ExchangeConfig(tape=tape, speed=float("inf"), data_dir=data_dir)
        async with Exchange(config) as exchange:
            first = (await _read(exchange, events=1))[0]
            assert first.get("t", played.last_id + 1) == played.last_id + 1
            await exchange.wait_tape_finished()

    asyncio.run(first_life())
    asyncio.run(second_life())
    with Ledger.read(data_dir) as ledger:
        assert ledger.count("BTCUSDT", FILL) == 200
        assert [row.row_id for row in ledger.rows("BTCUSDT", AGG)] == list(range(50))


def test_another_tape_on_the_same_directory_is_refused(tmp_path: Path) -> None:
    async def start(**settings: Any) -> None:
        async with Exchange(ExchangeConfig(data_dir=tmp_path / "data", rate=0, **settings)):
            pass

    asyncio.run(start())
    with pytest.raises(StopError, match="holds another tape"):
        asyncio.run(start(tape=_recording(tmp_path / "tape.ndjson", fills=3)))


def test_a_port_in_use_and_an_unlisted_symbol_are_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Exchange(ExchangeConfig(rate=0)) as exchange:
            with pytest.raises(StopError, match="cannot listen on"):
                async with Exchange(ExchangeConfig(rate=0, port=exchange.port)):
                    pass
        with pytest.raises(StopError, match="unknown symbol NOPE"):
            async with Exchange(ExchangeConfig(symbols=("NOPE",))):
                pass
        tape = _recording(tmp_path / "tape.ndjson", fills=3)
        with pytest.raises(StopError, match="holds none of the symbols"):
            async with Exchange(ExchangeConfig(tape=tape, symbols=("ETHUSDT",))):
                pass

    asyncio.run(scenario())


def test_speeds() -> None:
    assert parse_speed("10") == 10
    assert parse_speed("0.5") == 0.5
    assert parse_speed("max") == float("inf")
    for wrong in ("0", "-1", "nan", "inf", "fast", ""):
        with pytest.raises(ValueError, match="speed must be"):
            parse_speed(wrong)
