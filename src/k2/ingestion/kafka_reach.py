"""Does anybody listen where Kafka should be? A command asks this first: it is told at once."""

import socket

from k2.errors import RetryError

CONNECT_MAX_S = 2.0


def require_kafka(bootstrap: str) -> None:
    """Return if one of the addresses takes a connection.

    Args:
        bootstrap: ``host:port``, several separated by commas.

    Raises:
        RetryError: If none does, with what starts a Kafka.
    """
    for address in bootstrap.split(","):
        host, _, port = address.strip().rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), CONNECT_MAX_S).close()
        except OSError:
            continue
        return
    raise RetryError(
        f"nobody listens at {bootstrap}: `k2 up` starts Kafka and all that belongs to it; another "
        "one is named with --kafka-bootstrap (KAFKA_BOOTSTRAP)"
    )
