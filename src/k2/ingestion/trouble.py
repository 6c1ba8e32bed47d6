"""Saying what goes wrong for as long as it does, without filling a disk with it."""

from collections.abc import Callable
from typing import Any

import structlog

SAID_EVERY_S = 60.0
AGAIN_AFTER_S = 5.0
"""What was over in between is news so soon after it was said."""

REASONS_MAX = 8
"""Different ones in a minute; of more there is only the count."""

_log = structlog.get_logger()


class Trouble:
    """One thing that is tried again and again, and fails.

    ``unsaid`` on a line is how often it failed, for whatever reason, since the line before.
    """

    def __init__(self, event: str, monotonic_s: Callable[[], float], **fields: Any) -> None:
        """Name the log's event, and what else belongs on each of its lines."""
        self.reason = ""
        """Why it fails now; nothing when it does not."""
        self._event = event
        self._monotonic_s = monotonic_s
        self._fields = fields
        self._said_s: dict[str, float] = {}
        self._unsaid = 0

    def met(self, reason: str) -> None:
        """Take note of a failure; say it unless the same was said within the minute."""
        now_s = self._monotonic_s()
        every_s = SAID_EVERY_S if self.reason else AGAIN_AFTER_S
        self.reason = reason
        self._said_s = {
            said: at_s for said, at_s in self._said_s.items() if now_s - at_s < SAID_EVERY_S
        }
        too_many = reason not in self._said_s and len(self._said_s) >= REASONS_MAX
        if too_many or now_s - self._said_s.get(reason, float("-inf")) < every_s:
            self._unsaid += 1
            return
        _log.warning(self._event, **self._fields, reason=reason, unsaid=self._unsaid)
        self._said_s[reason], self._unsaid = now_s, 0

    def over(self) -> None:
        """Take note that it did not fail."""
        self.reason = ""
