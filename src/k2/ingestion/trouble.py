"""Saying what goes wrong for as long as it does, without filling a disk with it."""

from collections.abc import Callable
from typing import Any

import structlog

SAID_EVERY_S = 60.0

_log = structlog.get_logger()


class Trouble:
    """One thing that is tried again and again, and fails."""

    def __init__(self, event: str, monotonic_s: Callable[[], float], **fields: Any) -> None:
        """Name the log's event, and what else belongs on each of its lines."""
        self.reason = ""
        """Why it fails now; nothing when it does not."""
        self._event = event
        self._monotonic_s = monotonic_s
        self._fields = fields
        self._said = ("", float("-inf"))
        self._unsaid = 0

    def met(self, reason: str) -> None:
        """Take note of a failure; say it unless the same was said within the minute."""
        self.reason = reason
        now_s = self._monotonic_s()
        said, said_s = self._said
        if reason == said and now_s - said_s < SAID_EVERY_S:
            self._unsaid += 1
            return
        _log.warning(self._event, **self._fields, reason=reason, unsaid=self._unsaid)
        self._said, self._unsaid = (reason, now_s), 0

    def over(self) -> None:
        """Take note that it did not fail."""
        self.reason = ""
