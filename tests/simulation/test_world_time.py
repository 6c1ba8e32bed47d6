import asyncio
import gc
import time

import pytest

from simulation.world.blocking import BlockedLoopError, Worker, run_blocking, wait_for, wait_s
from simulation.world.node import NodeState, current_node
from simulation.world.virtual_time import (
    DeadlockError,
    VirtualTimeLoop,
    virtual_time,
)


def test_a_day_of_sleep_takes_no_time() -> None:
    with virtual_time() as loop:
        began_s = time.perf_counter()
        loop.run_until_complete(asyncio.sleep(86_400))
        assert loop.time() == 86_400
        assert time.perf_counter() - began_s < 1


def test_timeouts_and_task_groups_work_as_usual() -> None:
    async def main() -> list[float]:
        loop = asyncio.get_running_loop()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await asyncio.sleep(60)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(asyncio.sleep(s, s)) for s in (3.0, 1.0, 2.0)]
        return [loop.time(), *(task.result() for task in tasks)]

    with virtual_time() as loop:
        assert loop.run_until_complete(main()) == [8.0, 3.0, 1.0, 2.0]


def test_timers_of_one_instant_run_in_the_order_they_were_set() -> None:
    seen: list[int] = []
    with virtual_time() as loop:
        for number in range(100):
            loop.call_at(5.0, seen.append, number)
        loop.run_until_complete(asyncio.sleep(6))
    assert seen == list(range(100))


def test_a_wait_nobody_can_end_is_named() -> None:
    async def main() -> None:
        task = asyncio.create_task(asyncio.Event().wait(), name="waits-for-ever")
        await task

    with virtual_time() as loop, pytest.raises(DeadlockError, match="waits-for-ever"):
        loop.run_until_complete(main())


def test_an_error_in_a_callback_ends_the_run() -> None:
    with virtual_time() as loop:
        loop.call_later(1, lambda: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            loop.run_until_complete(asyncio.sleep(2))


def test_threads_are_refused() -> None:
    async def main() -> None:
        await asyncio.to_thread(time.monotonic)

    with virtual_time() as loop, pytest.raises(RuntimeError, match="thread"):
        loop.run_until_complete(main())


def test_a_frozen_nodes_timers_wait_and_then_run_in_order() -> None:
    seen: list[str] = []

    async def says(after_s: float) -> None:
        await asyncio.sleep(after_s)
        seen.append(f"{current_node().name} {after_s} at {asyncio.get_running_loop().time()}")

    with virtual_time() as loop:
        a, b = loop.node("a"), loop.node("b")
        for after_s in (2.0, 1.0, 3.0):
            loop.spawn(a, says(after_s))
        loop.spawn(b, says(1.5))
        loop.call_world(0.5, loop.freeze, a)
        loop.call_world(10, loop.thaw, a)
        loop.run_until_complete(asyncio.sleep(20))
    assert seen == ["b 1.5 at 1.5", "a 1.0 at 10.0", "a 2.0 at 10.0", "a 3.0 at 10.0"]


def test_a_killed_node_never_runs_again_not_even_its_finally(
    capsys: pytest.CaptureFixture[str],
) -> None:
    seen: list[str] = []

    async def works() -> None:
        try:
            await asyncio.sleep(5)
        finally:
            if current_node().alive:
                seen.append("finally")
            await asyncio.sleep(1)
            seen.append("after")

    with virtual_time() as loop:
        node = loop.node("a")
        states: list[NodeState] = []
        node.watchers.append(lambda n: states.append(n.state))
        loop.spawn(node, works())
        loop.call_world(1, loop.kill, node)
        loop.run_until_complete(asyncio.sleep(20))
        assert states == [NodeState.DEAD]
        assert seen == []
    assert seen == []
    assert "destroyed" not in capsys.readouterr().err


def test_a_killed_nodes_tasks_are_kept_from_the_collector() -> None:
    seen: list[str] = []

    async def works() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            seen.append("finally")

    with virtual_time() as loop:
        node = loop.node("a")
        loop.spawn(node, works())
        loop.call_world(1, loop.kill, node)
        loop.run_until_complete(asyncio.sleep(2))
        gc.collect()
        assert seen == []


def test_the_worlds_callbacks_outlive_the_node_that_asked() -> None:
    seen: list[str] = []

    async def asks(loop: VirtualTimeLoop) -> None:
        loop.call_world(5, seen.append, "world")
        loop.call_later(5, seen.append, "node")

    with virtual_time() as loop:
        node = loop.node("a")
        loop.spawn(node, asks(loop))
        loop.call_world(1, loop.kill, node)
        loop.run_until_complete(asyncio.sleep(20))
    assert seen == ["world"]


def test_blocking_calls_wait_in_virtual_time_while_others_run() -> None:
    seen: list[tuple[str, float]] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()

        def call(name: str, seconds: float) -> str:
            wait_s(seconds)
            seen.append((name, loop.time()))
            return name

        results = await asyncio.gather(
            run_blocking(lambda: call("slow", 3)), run_blocking(lambda: call("fast", 1))
        )
        assert list(results) == ["slow", "fast"]
        with pytest.raises(ZeroDivisionError):
            await run_blocking(lambda: 1 // 0)

    with virtual_time() as loop:
        loop.run_until_complete(main())
    assert seen == [("fast", 1.0), ("slow", 3.0)]


def test_a_worker_runs_one_call_at_a_time_and_goes_on_after_a_cancelled_caller() -> None:
    seen: list[tuple[int, float]] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        worker = Worker()

        def call(number: int) -> None:
            wait_s(1)
            seen.append((number, loop.time()))

        tasks = [asyncio.create_task(worker.run(lambda n=n: call(n))) for n in range(4)]  # type: ignore[misc]
        await asyncio.sleep(0.5)
        tasks[0].cancel()  # it has begun: a thread would go on
        tasks[2].cancel()  # it has not
        await asyncio.gather(*tasks[:4], return_exceptions=True)
        tasks += [asyncio.create_task(worker.run(lambda n=n: call(n))) for n in (4, 5)]  # type: ignore[misc]
        await asyncio.sleep(0.5)
        worker.close()
        await asyncio.sleep(5)
        assert [task.cancelled() for task in tasks[4:]] == [False, True]
        with pytest.raises(RuntimeError):
            await worker.run(lambda: None)

    with virtual_time() as loop:
        loop.run_until_complete(main())
    assert seen == [(0, 1.0), (1, 2.0), (3, 3.0), (4, 4.0)]


def test_a_wait_ends_with_its_future_or_its_time() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        loop.call_later(2, future.set_result, None)
        assert not await run_blocking(lambda: wait_for(future, timeout_s=1))
        assert loop.time() == 1
        assert await run_blocking(lambda: wait_for(future, timeout_s=5))
        assert loop.time() == 2

    with virtual_time() as loop:
        loop.run_until_complete(main())


def test_blocking_the_event_loop_is_found() -> None:
    async def main() -> None:
        wait_s(1)

    with virtual_time() as loop, pytest.raises(BlockedLoopError):
        loop.run_until_complete(main())


def test_a_frozen_nodes_blocking_call_waits_and_a_killed_ones_is_dropped() -> None:
    seen: list[tuple[str, float]] = []

    with virtual_time() as loop:

        def call() -> None:
            try:
                wait_s(1)
                seen.append((current_node().name, loop.time()))
            finally:
                if current_node().alive:
                    seen.append(("finally", loop.time()))

        frozen, killed = loop.node("frozen"), loop.node("killed")
        for node in (frozen, killed):
            loop.spawn(node, run_blocking(call))
        loop.call_world(0.5, loop.freeze, frozen)
        loop.call_world(0.5, loop.kill, killed)
        loop.call_world(9, loop.thaw, frozen)
        loop.run_until_complete(asyncio.sleep(20))
    assert seen == [("frozen", 9.0), ("finally", 9.0)]
