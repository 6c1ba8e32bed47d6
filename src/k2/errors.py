"""The four kinds of failure, named by what to do next."""

import msgspec

NOT_DECODABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What msgspec raises at bytes it was not made for; the last one at brackets without end."""


class K2Error(Exception):
    """Base of every error k2 raises on purpose."""


class RejectError(K2Error):
    """The input is bad and will stay bad: dead-letter it, count it, move on."""

    def __init__(self, message: str, *, error_type: str = "invalid_field") -> None:
        """Keep ``error_type``, the bounded label of metrics and dead letters (contract R005)."""
        super().__init__(message)
        self.error_type = error_type


class RetryError(K2Error):
    """The attempt failed cleanly: nothing happened, try again after a delay."""


class ReconcileError(K2Error):
    """The outcome is unknown: read back what happened before trying again."""


class StopError(K2Error):
    """Continuing could corrupt data: stop the process and page someone.

    The message says what was found and names the command that repairs it.
    """
