"""What the system tests share: the programs of Debian's packages, and the integration stack.

Nothing is installed here, and nothing is skipped: a missing program fails and names the way out.
"""

import shutil

import pytest

from integration.conftest import room, stack

__all__ = ["program", "room", "stack"]

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
