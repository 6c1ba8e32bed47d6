import socket

import pytest

from k2.errors import RetryError
from k2.ingestion.kafka_reach import require_kafka


def test_whoever_takes_a_connection_will_do() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_server(("", 0)) as gone:
        port, away = server.getsockname()[1], gone.getsockname()[1]
        gone.close()
        require_kafka(f"127.0.0.1:{away}, localhost:{port}")
        with pytest.raises(RetryError, match=rf"nobody listens at 127.0.0.1:{away}: `k2 up`"):
            require_kafka(f"127.0.0.1:{away}")
