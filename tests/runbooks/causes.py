"""Causes of trouble that more than one test brings about."""

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from types import TracebackType
from typing import Self

from k2.local.background import BackgroundStack
from k2.simulator.proxy import FaultProxy


class Line:
    """A network path to one port: passes everything, until it is cut."""

    def __init__(self, stack: BackgroundStack, port: int) -> None:
        """Lay it to a port of this machine."""
        self._stack = stack
        self._proxy = FaultProxy("127.0.0.1", port)

    def __enter__(self) -> Self:
        """Open it."""
        self._stack.call(self._proxy.__aenter__())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
        self._stack.call(self._proxy.__aexit__(kind, error, trace))

    @property
    def address(self) -> str:
        """Where it begins."""
        return f"127.0.0.1:{self._proxy.port}"

    def cut(self) -> None:
        """Reset what is open, refuse what comes."""

        async def cut() -> None:
            self._proxy.refuse()
            self._proxy.cut()

        self._stack.call(cut())

    def mend(self) -> None:
        """Let connections through again."""
        self._stack.call(self._proxy.accept())

    def lengthen(self, delay_s: float) -> None:
        """Have everything take so much longer, each way."""
        self._proxy.delay_s = delay_s


@contextmanager
def blocked_address() -> Iterator[str]:
    """Yield an address whose packets are dropped, as a firewall drops them.

    Linux drops a SYN when the queue of connections that nobody accepts is full.
    """
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        waiting = [socket.socket() for _ in range(3)]
        try:
            for one in waiting:
                one.setblocking(False)
                one.connect_ex(listening.getsockname())
            yield f"127.0.0.1:{listening.getsockname()[1]}"
        finally:
            for one in waiting:
                one.close()


@contextmanager
def starved(pid: int, *, runs_s: float, rests_s: float) -> Iterator[None]:
    """Let a process run only now and then, as a host or container without CPU to spare does."""
    over = Event()

    def beat() -> None:
        while not over.wait(runs_s):
            os.kill(pid, signal.SIGSTOP)
            over.wait(rests_s)
            os.kill(pid, signal.SIGCONT)

    thread = Thread(target=beat)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        os.kill(pid, signal.SIGCONT)


@contextmanager
def overlaid(path: Path) -> Iterator[None]:
    """Have something else stand where a file or folder was, as when its disk is not mounted."""
    elsewhere = path.with_name("elsewhere")
    path.rename(elsewhere)
    path.write_text("not what should be here")
    try:
        yield
    finally:
        path.unlink()
        elsewhere.rename(path)
