import asyncio

import pytest

from k2.binance.websocket import connect, feed_url
from k2.errors import RetryError
from k2.simulator import Exchange, ExchangeConfig


class Heard:
    """What a socket told."""

    def __init__(self) -> None:
        self.texts: list[bytes] = []
        self.pings = 0
        self.pongs = 0
        self.closed: list[tuple[int, str]] = []
        self.ends = 0

    def text(self, payload: bytes, recv_ts_ns: int) -> None:
        assert recv_ts_ns > 1_700_000_000 * 10**9
        self.texts.append(payload)

    def pinged(self) -> None:
        self.pings += 1

    def ponged(self) -> None:
        self.pongs += 1

    def refused(self, code: int, text: str) -> None:
        self.closed.append((code, text))

    def ended(self) -> None:
        self.ends += 1


def test_pings_are_told_and_answered_in_time() -> None:
    async def scene() -> Heard:
        heard = Heard()
        # Pongs must copy the payload (strict by default), or the exchange closes after 0.9 s.
        config = ExchangeConfig(ping_interval_s=0.4, ping_timeout_s=0.9)
        async with Exchange(config) as exchange, asyncio.timeout(10):
            socket = await connect(f"{exchange.ws_url}/ws", heard)
            socket.send_ping()
            while heard.pings < 4 or heard.pongs < 1:  # noqa: ASYNC110 - the exchange's pace
                await asyncio.sleep(0.01)
            assert heard.ends == 0
            socket.close(1000)
            await socket.wait_ended()
        return heard

    heard = asyncio.run(scene())
    assert heard.closed == []
    assert heard.ends == 1


def test_a_refused_connection_is_to_be_tried_again() -> None:
    async def scene() -> None:
        async with Exchange(ExchangeConfig()) as exchange:
            url = f"{exchange.ws_url}/ws"
        with pytest.raises(RetryError, match="/ws"):
            await connect(url, Heard())

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("wss://stream.binance.com:9443/ws", "wss://stream.binance.com:9443/ws"),
        ("wss://stream.binance.com:9443", "wss://stream.binance.com:9443/ws"),
        ("wss://stream.binance.com/stream", "wss://stream.binance.com/stream"),
    ],
)
def test_times_are_asked_for_in_microseconds(url: str, expected: str) -> None:
    assert feed_url(url) == f"{expected}?timeUnit=MICROSECOND"
