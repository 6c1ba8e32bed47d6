"""Who may be at an address that is asked."""

import socket
import threading
from collections.abc import Iterator

import pytest


@pytest.fixture
def stranger() -> Iterator[str]:
    """Have somebody answer once who speaks no HTTP."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"SSH-2.0-OpenSSH_9.6\r\n")

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        thread.join()
