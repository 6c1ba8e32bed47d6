"""What the system tests share: the programs of Debian's packages, and the integration stack.

Nothing is installed here, and nothing is skipped: a missing program fails and names the way out.
"""

import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from integration.conftest import recording, room, stack
from system.ups import Up

__all__ = ["StartUp", "program", "recording", "room", "stack", "start_up"]

StartUp = Callable[..., Up]
"""Starts a ``k2 up`` with the arguments of ``Up``; it is ended, and deleted, with the test."""

PACKAGES = {
    "prometheus": "prometheus",
    "promtool": "prometheus",
    "prometheus-alertmanager": "prometheus-alertmanager",
    "amtool": "prometheus-alertmanager",
    "chromium": "chromium",
    "logrotate": "logrotate",
    "jq": "jq",
}


def program(name: str) -> str:
    """Return the path of an installed program, or fail the test."""
    found = shutil.which(name, path="/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")
    if found is None:
        pytest.fail(
            f"{name} is not installed (Debian package {PACKAGES[name]}): run "
            "scripts/install_debian_packages.sh as root, as make test-system does",
            pytrace=False,
        )
    return found


@pytest.fixture
def start_up() -> Iterator[StartUp]:
    """Start ``k2 up``; nothing of it is left when the test has ended."""
    ups: list[Up] = []

    def start(*arguments: Any, **named: Any) -> Up:
        ups.append(Up(*arguments, **named))
        return ups[-1]

    yield start
    for up in ups:
        if up.popen.poll() is None:
            up.popen.kill()
            up.popen.wait()
        up.k2("down", "--delete")
