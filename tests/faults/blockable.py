"""The capture with a handle to block its event loop: SIGALRM holds the main thread.

Python runs a signal's handler on the main thread, between two steps of the event loop. The
threads of librdkafka and our own workers go on, as they would under a real hang.
"""

import signal
import time

from k2.ingestion.binance_client import main

BLOCKED_S = 60.0


def block(_number: int, _frame: object) -> None:
    """Hold the event loop."""
    time.sleep(BLOCKED_S)


if __name__ == "__main__":
    signal.signal(signal.SIGALRM, block)
    main()
