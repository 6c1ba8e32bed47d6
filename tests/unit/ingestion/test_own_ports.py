import socket

import pytest

from k2.errors import StopError
from k2.ingestion.own_ports import require_own_ports


def test_ports_in_use_are_named_together_with_their_variables() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as one,
        socket.create_server(("127.0.0.1", 0)) as other,
    ):
        first, second = one.getsockname()[1], other.getsockname()[1]
        with pytest.raises(StopError) as caught:
            require_own_ports({"K2_METRICS_PORT": first, "K2_HEALTH_PORT": second, "K2_X": 0})
    assert f"in use already: K2_METRICS_PORT={first}, K2_HEALTH_PORT={second}." in str(caught.value)
    require_own_ports({"K2_METRICS_PORT": first, "K2_HEALTH_PORT": 0})
