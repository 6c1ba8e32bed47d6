"""The fault proxy, between real sockets on loopback."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from k2.errors import StopError
from k2.simulator.proxy import Direction, FaultProxy

WaitUntil = Callable[..., Awaitable[None]]
Pair = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Target:
    """A server whose connections a test holds in its hands."""

    def __init__(self) -> None:
        self.port = 0
        self._accepted: asyncio.Queue[Pair] = asyncio.Queue()

    async def accepted(self) -> Pair:
        return await self._accepted.get()

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._accepted.put((reader, writer))


@contextlib.asynccontextmanager
async def _proxied() -> AsyncIterator[tuple[FaultProxy, Target]]:
    target = Target()
    server = await asyncio.start_server(target.take, "127.0.0.1", 0)
    target.port = server.sockets[0].getsockname()[1]
    async with asyncio.timeout(30), FaultProxy("127.0.0.1", target.port) as proxy:
        yield proxy, target
    server.close()


async def _connected(proxy: FaultProxy, target: Target) -> tuple[Pair, Pair]:
    client = await asyncio.open_connection("127.0.0.1", proxy.port)
    return client, await target.accepted()


async def _nothing(reader: asyncio.StreamReader, *, for_s: float = 0.1) -> bool:
    try:
        async with asyncio.timeout(for_s):
            await reader.read(1)
    except TimeoutError:
        return True
    return False


def test_bytes_and_ends_pass_both_ways() -> None:
    async def scenario() -> None:
        async with _proxied() as (proxy, target):
            (reader, writer), (far_reader, far_writer) = await _connected(proxy, target)
            payload = bytes(range(256)) * 4000
            writer.write(payload)
            writer.write_eof()
            assert await far_reader.read(-1) == payload
            # The other direction is still open.
            far_writer.write(payload[::-1])
            await far_writer.drain()
            far_writer.close()
            assert await reader.read(-1) == payload[::-1]
            writer.close()

    asyncio.run(scenario())


def test_cut_resets_both_ends_of_every_connection(wait_until: WaitUntil) -> None:
    async def scenario() -> None:
        async with _proxied() as (proxy, target):
            pairs = [await _connected(proxy, target) for _ in range(2)]
            assert proxy.connections == 2
            assert proxy.cut() == 2
            for near, far in pairs:
                for reader, writer in (near, far):
                    with pytest.raises(ConnectionResetError):
                        await reader.read(1)
                    writer.close()
            await wait_until(lambda: proxy.connections == 0)
            (reader, writer), (_, far_writer) = await _connected(proxy, target)
            far_writer.write(b"x")
            assert await reader.read(1) == b"x"
            writer.close()
            far_writer.close()

    asyncio.run(scenario())


def test_refused_connections_are_refused_and_the_port_comes_back() -> None:
    async def scenario() -> None:
        async with _proxied() as (proxy, target):
            port = proxy.port
            (reader, writer), (_, far_writer) = await _connected(proxy, target)
            for _ in range(3):
                proxy.refuse()
                assert not proxy.accepting
                with pytest.raises(ConnectionRefusedError):
                    await asyncio.open_connection("127.0.0.1", port)
                with socket.socket() as thief, pytest.raises(OSError, match="in use"):
                    thief.bind(("127.0.0.1", port))
                await proxy.accept()
                assert proxy.port == port
                (_, other), _ = await _connected(proxy, target)
                other.close()
            # An open connection lived through it.
            far_writer.write(b"x")
            assert await reader.read(1) == b"x"
            writer.close()

    asyncio.run(scenario())


def test_a_stall_holds_bytes_and_ends_both_ways_and_loses_nothing(wait_until: WaitUntil) -> None:
    async def scenario() -> None:
        async with _proxied() as (proxy, target):
            (reader, writer), (far_reader, far_writer) = await _connected(proxy, target)
            proxy.stall()
            writer.write(b"there")
            far_writer.write(b"back")
            far_writer.write_eof()
            assert await _nothing(reader)
            assert await _nothing(far_reader)
            proxy.resume()
            assert await far_reader.readexactly(5) == b"there"
            assert await reader.read(-1) == b"back"
            writer.close()
            far_writer.close()

    asyncio.run(scenario())


def test_while_stalled_one_end_does_not_learn_that_the_other_was_reset(
    wait_until: WaitUntil,
) -> None:
    async def scenario() -> None:
        async with _proxied() as (proxy, target):
            (reader, writer), (_, far_writer) = await _connected(proxy, target)
            proxy.stall()
            writer.write(b"unread")
            linger = struct.pack("ii", 1, 0)
            far = far_writer.get_extra_info("socket")
            far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            far_writer.transport.abort()
            await wait_until(lambda: proxy.counts["broken"] == 1)
            assert await _nothing(reader)
            proxy.resume()
            with pytest.raises(ConnectionResetError):
                await reader.read(1)
            writer.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("fault", ["stall", "delay", "slow reader"])
def test_a_sender_is_held_back_instead_of_filling_memory(fault: str) -> None:
    async def scenario() -> None:
        async with _proxied() as (proxy, target):
            (_, writer), (_, far_writer) = await _connected(proxy, target)
            if fault == "stall":
                proxy.stall()
            elif fault == "delay":
                proxy.delay_s = 600
            sent = 0
            with contextlib.suppress(TimeoutError):
                while True:
                    writer.write(bytes(65536))
                    sent += 65536
                    await asyncio.wait_for(writer.drain(), 1)
            # 4 MiB of ours, and what the kernel keeps on two sockets.
            assert sent < 24 * 2**20
            writer.transport.abort()
            far_writer.transport.abort()

    asyncio.run(scenario())


def test_a_throttle_limits_the_direction_it_is_for() -> None:
    async def scenario() -> None:
        async with _proxied() as (proxy, target):
            (reader, writer), (far_reader, far_writer) = await _connected(proxy, target)
            proxy.throttle(bytes_per_s=100_000, direction=Direction.TO_CLIENT)
            loop = asyncio.get_running_loop()
            started = loop.time()
            writer.write(bytes(5_000_000))
            await far_reader.readexactly(5_000_000)
            assert loop.time() - started < 2
            started = loop.time()
            far_writer.write(bytes(50_000))
            await reader.readexactly(50_000)
            assert loop.time() - started >= 0.4
            proxy.throttle(bytes_per_s=None)
            started = loop.time()
            far_writer.write(bytes(500_000))
            await reader.readexactly(500_000)
            assert loop.time() - started < 2
            with pytest.raises(ValueError, match="above 0"):
                proxy.throttle(bytes_per_s=0)
            writer.close()
            far_writer.close()

    asyncio.run(scenario())


def test_a_delay_is_latency_and_not_a_limit_of_throughput() -> None:
    async def scenario() -> None:
        async with _proxied() as (proxy, target):
            (reader, writer), (_, far_writer) = await _connected(proxy, target)
            proxy.delay_s = 0.2
            loop = asyncio.get_running_loop()
            started = loop.time()
            far_writer.write(bytes(2_000_000))
            await reader.readexactly(1)
            assert loop.time() - started >= 0.2
            await reader.readexactly(2_000_000 - 1)
            # One delay for all of the 122 chunks, not one for each.
            assert loop.time() - started < 2
            writer.close()
            far_writer.close()

    asyncio.run(scenario())


def test_a_target_that_is_down_looks_like_a_reset(wait_until: WaitUntil) -> None:
    async def scenario() -> None:
        async with _proxied() as (_, target), FaultProxy("127.0.0.1", 1) as proxy:
            assert target.port != 1
            reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
            with pytest.raises(ConnectionResetError):
                await reader.read(1)
            await wait_until(lambda: proxy.connections == 0)
            assert proxy.counts["broken"] == 1
            writer.close()

    asyncio.run(scenario())


def test_a_taken_port_is_refused_and_leaving_frees_it() -> None:
    async def scenario() -> None:
        async with FaultProxy("127.0.0.1", 1) as proxy:
            port = proxy.port
            with pytest.raises(StopError, match="cannot listen"):
                async with FaultProxy("127.0.0.1", 1, port=port):
                    pass
        async with FaultProxy("127.0.0.1", 1, port=port):
            pass

    asyncio.run(scenario())
