"""The ports a service is to listen on: all that are taken are refused together, before all else."""

import socket
from collections.abc import Mapping

from k2.errors import StopError
from k2.observability.http import HOST


def require_own_ports(wanted: Mapping[str, int]) -> None:
    """Refuse to start on ports somebody else listens on; 0 is off.

    Args:
        wanted: Variable to port.

    Raises:
        StopError: One line that names all of them.
    """
    taken = [
        f"{variable}={port}" for variable, port in wanted.items() if port and not is_free(port)
    ]
    if taken:
        raise StopError(
            f"in use already: {', '.join(taken)}. Is another one running? Choose others; 0 turns "
            "one off"
        )


def is_free(port: int, *, host: str = HOST) -> bool:
    """Say whether a server could listen here now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        return can_listen(probe, host=host, port=port)


def can_listen(probe: socket.socket, *, host: str, port: int) -> bool:
    """Bind a socket as servers do and listen; while it stays open, nobody else can."""
    # Connections of a server that just ended must not count as taken.
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        probe.bind((host, port))
        # Two sockets may be bound alike; only one may listen.
        probe.listen(1)
    except OSError:
        return False
    return True
