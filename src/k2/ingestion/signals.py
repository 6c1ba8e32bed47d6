"""What an operator can ask of a running capture: a role by SIGUSR1 and 2, new lines by SIGHUP."""

import asyncio
import os
import signal

import structlog

from k2.binance.leg import MANUAL, Leg
from k2.ingestion.capture import Capture
from k2.ingestion.host import Host
from k2.ingestion.membership import Wish

_log = structlog.get_logger()


class Signals:
    """Obeyed from the start: by default each of these signals would end the process."""

    def __init__(self, wish: Wish, *, host: Host) -> None:
        """Listen; ``wish`` is the role it was started with.

        Where there is a terminal SIGHUP says that it is gone, and ends the process as ever.
        """
        self._wish = wish
        self._host = host
        self._capture: Capture | None = None
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGUSR1, self._become, Wish.AUTO)
        loop.add_signal_handler(signal.SIGUSR2, self._become, Wish.OBSERVER)
        if not has_terminal():
            loop.add_signal_handler(signal.SIGHUP, self._rotate)

    def rule(self, capture: Capture) -> None:
        """Pass on the role that was asked for so far, and everything from now on."""
        self._capture = capture
        if capture.membership.wish is not self._wish:
            capture.membership.become(self._wish)

    def _become(self, wish: Wish) -> None:
        self._wish = wish
        if self._capture is not None:
            self._capture.membership.become(wish)

    def _rotate(self) -> None:
        """Replace the connection of every leg that has one, make before break."""
        replacing: list[str] = []
        left: list[str] = []
        now_s = self._host.monotonic_s()

        def ask(leg: Leg) -> None:
            (replacing if leg.rotate(MANUAL, now_s) else left).append(leg.name)

        if self._capture is not None:
            self._capture.legs.each(ask)
        # Those left alone have no connection to replace, or are replacing it already.
        _log.info("rotation_requested", by="SIGHUP", legs=replacing, left_alone=left)


def has_terminal() -> bool:
    """Say whether a terminal controls this process, whose end would be its own."""
    try:
        os.close(os.open(os.ctermid(), os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True
