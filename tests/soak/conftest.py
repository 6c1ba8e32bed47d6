"""Hours of soak are run by who names their file, never by who names the folder."""

from pathlib import Path

import pytest

LONG = ("test_binance_1h_validation.py", "test_binance_24h_soak.py")


def pytest_configure(config: pytest.Config) -> None:
    """Say what the marker means."""
    config.addinivalue_line("markers", "soak: minutes to hours on a real Kafka; -m soak")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out long forms that were not named, and the short one unless -m asks for it."""
    named = {Path(argument.partition("::")[0]).name for argument in config.invocation_params.args}
    marked = "soak" in str(config.getoption("-m"))
    left_out = [
        item
        for item in items
        if item.get_closest_marker("soak")
        and item.path.name not in named
        and (item.path.name in LONG or not marked)
    ]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
