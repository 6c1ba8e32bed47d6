"""What the capture says is wrong, for the live view: its ``/health``, asked every second."""

import threading
import time
import urllib.error
import urllib.request
from http.client import HTTPException

import msgspec

LOOK_EVERY_S = 1.0
ANSWER_MAX_S = 2.0
UNANSWERED_S = 5.0
"""A capture that is started again answers sooner than this."""

FIRST_ANSWER_S = 30.0
"""Its first start waits for Kafka's."""


class _Problem(msgspec.Struct):
    text: str


class _Said(msgspec.Struct):
    problems: list[_Problem]


class HealthLook:
    """Asks on a thread of its own; ``problems`` is what it last heard, worst first."""

    def __init__(self, port: int) -> None:
        """Name the port on loopback; 0 says that there is nobody to ask."""
        self.problems: list[str] = []
        self._url = f"http://127.0.0.1:{port}/health" if port else ""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="health", daemon=True)

    def start(self) -> None:
        """Begin."""
        if self._url:
            self._thread.start()

    def stop(self) -> None:
        """End, soon."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(ANSWER_MAX_S + LOOK_EVERY_S)

    def _run(self) -> None:
        silent_from_s = time.monotonic() + FIRST_ANSWER_S - UNANSWERED_S
        while not self._stop.wait(LOOK_EVERY_S):
            said = self._ask()
            now_s = time.monotonic()
            if said is not None:
                silent_from_s = now_s
                self.problems = [one.text for one in said.problems]
            elif now_s - silent_from_s > UNANSWERED_S:
                self.problems = [
                    f"k2 stream has not answered at {self._url} for {now_s - silent_from_s:.0f} s."
                ]

    def _ask(self) -> _Said | None:
        try:
            with urllib.request.urlopen(self._url, timeout=ANSWER_MAX_S) as answer:  # noqa: S310 - loopback
                return _decoded(answer.read())
        except urllib.error.HTTPError as exc:
            with exc:
                return _decoded(exc.read())  # unhealthy is an answer too
        except (OSError, HTTPException):
            return None


def _decoded(body: bytes) -> _Said | None:
    try:
        return msgspec.json.decode(body, type=_Said)
    except msgspec.MsgspecError:
        return None
