import asyncio

import pytest

from k2.binance.websocket import ConnectError, connect, feed_url
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
    ("location", "named"),
    [
        (b"https://portal.example/login?token=hush#hush", "'https://portal.example/login'"),
        (b"wss://me:hush@portal.example/", "'wss://portal.example/'"),  # pragma: allowlist secret
        (b"wss://.portal/", "'wss://.portal/'"),
        (b"ws://127.0.0.1:port/", "'ws://127.0.0.1:port/'"),
        (b"ws://[portal]/", "'ws://[portal]/'"),
        (b"/\xff", "'/"),
        (b"", "''"),
    ],
)
def test_a_redirect_is_not_followed_and_says_where_it_points(location: bytes, named: str) -> None:
    async def scene() -> None:
        followed = False

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal followed
            followed = (await reader.readuntil(b"\r\n\r\n")).startswith(b"GET / ")
            head = b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: " + location
            writer.write(head + b"\r\n\r\n")
            await writer.drain()
            writer.close()

        async with await asyncio.start_server(answer, "127.0.0.1") as server, asyncio.timeout(10):
            port = server.sockets[0].getsockname()[1]
            with pytest.raises(ConnectError, match="302") as caught:
                await connect(f"ws://127.0.0.1:{port}/ws", Heard())
        assert f"redirect to {named}" in str(caught.value)
        assert "hush" not in str(caught.value)
        assert caught.value.kind == "handshake"
        assert not followed

    asyncio.run(scene())


def test_an_address_that_is_none_is_a_connection_that_could_not_be_opened() -> None:
    with pytest.raises(ConnectError, match="portal"):
        asyncio.run(connect("ws://.portal/ws", Heard()))


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
