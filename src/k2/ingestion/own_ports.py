"""The ports a service is to listen on: refused together, before anything else is done."""

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
    taken = [f"{variable}={port}" for variable, port in wanted.items() if port and _taken(port)]
    if taken:
        raise StopError(
            f"in use already: {', '.join(taken)}. Is another one running? Choose others; 0 turns "
            "one off"
        )


def _taken(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As the server does: connections of one that just ended must not count as taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
            probe.listen(1)
        except OSError:
            return True
    return False
