"""What both services export, judged by Prometheus's own tool."""

import subprocess

import pytest

from integration.harness import Room
from system.conftest import program

pytestmark = pytest.mark.integration

THE_CONTRACTS_OWN_NAME = "iceberg_snapshot_count "
"""R023 calls a gauge so; Prometheus keeps that ending for histograms."""


def test_promtool_has_nothing_to_say_of_what_the_services_export(room: Room) -> None:
    room.measured = True
    room.exchange("--rate", "200")
    services = room.stream(), room.archive()
    room.wait_until_archiving()
    for service in services:
        done = subprocess.run(
            [program("promtool"), "check", "metrics"],
            input=room.metrics(service).text,
            capture_output=True,
            text=True,
            check=False,
        )
        told = done.stdout.splitlines() + done.stderr.splitlines()
        assert [line for line in told if not line.startswith(THE_CONTRACTS_OWN_NAME)] == []
