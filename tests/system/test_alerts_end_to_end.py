"""Real services, Prometheus and Alertmanager: what is asked for is there, what fires is told."""

import asyncio
import json
import re
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
from aiohttp import web

from integration.harness import Room, wait_for
from k2.local.ports import pick_free
from k2.simulator.proxy import FaultProxy
from system.alert_files import ROOT, rules, selectors
from system.observing import TOKEN, Prometheus, start_alertmanager

pytestmark = pytest.mark.integration

# Prometheus makes these itself, and only while such an alert is there.
NOT_OF_THE_SERVICES = ("ALERTS{",)
ALERT_DEADLINE_S = 60.0


@dataclass
class Ports:
    """Where the services' metrics are."""

    stream: int
    archive: int


@contextmanager
def metrics_of(room: Room) -> Iterator[Ports]:
    """Have the room's services serve their metrics."""
    stream, archive = pick_free(2)
    room.extra |= {"K2_METRICS_PORT": str(stream), "K2_ARCHIVE_METRICS_PORT": str(archive)}
    yield Ports(stream, archive)


def asked_for() -> dict[str, set[str]]:
    """Return every selector of the shipped rules and dashboards, and who asks for it."""
    found: dict[str, set[str]] = {}
    for rule in rules():
        for one in selectors(rule.expression):
            found.setdefault(one, set()).add(rule.name)
    for path in sorted((ROOT / "config" / "grafana").rglob("*.json")):
        for expression in _panel_expressions(json.loads(path.read_text("utf-8"))):
            for one in selectors(_without_variables(expression)):
                found.setdefault(one, set()).add(path.stem)
    return found


def _panel_expressions(node: Any) -> Iterator[str]:
    parts = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    for part in parts:
        yield from _panel_expressions(part)
    if isinstance(node, dict) and isinstance(node.get("expr"), str):
        yield node["expr"]


def _without_variables(expression: str) -> str:
    """Put in what Grafana would: a time where one stands, anything for a label's value."""
    timed = re.sub(r"\[\$\{?\w+\}?", "[5m", expression)
    return re.sub(r"\$\{?\w+(:\w+)?\}?", ".*", timed)


def test_no_selector_of_rules_or_dashboards_is_empty(room: Room) -> None:
    with metrics_of(room) as ports:
        room.exchange("--rate", "100")
        room.stream()
        room.archive()
        room.wait_until_archiving()
        prometheus = Prometheus(room, stream_port=ports.stream, archive_port=ports.archive)
    wanted = {one: by for one, by in asked_for().items() if not one.startswith(NOT_OF_THE_SERVICES)}
    assert len(wanted) > 40

    def empty() -> dict[str, set[str]]:
        return {one: by for one, by in wanted.items() if not prometheus.query(one)}

    try:
        wait_for(lambda: not empty(), what="every selector to find something", deadline_s=30)
    except AssertionError:
        pytest.fail(f"nothing live matches: {empty()}")
    # A healthy room: but for the Watchdog nothing fires, once Prometheus has seen it. (The budget
    # counts ticks, and a hurried copy makes fifteen times as many: it means nothing here.)
    wait_for(
        lambda: {name for name in prometheus.firing() if "Budget" not in name} == {"Watchdog"},
        what=f"nothing but the Watchdog to fire: {prometheus.firing()}",
    )
    watchdog = prometheus.query('ALERTS{alertstate="firing", severity="none"}')
    assert [one["metric"]["alertname"] for one in watchdog] == ["Watchdog"]


class Webhook:
    """Where Alertmanager tells people: it keeps what it is told, by receiver."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str, dict[str, Any]]] = []
        self.tokens: set[str | None] = set()
        self._news = asyncio.Event()

    async def start(self) -> tuple[web.AppRunner, int]:
        app = web.Application()
        app.router.add_post("/{receiver}", self._take)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        return runner, runner.addresses[0][1]

    async def _take(self, request: web.Request) -> web.Response:
        self.tokens.add(request.headers.get("Authorization"))
        for alert in (await request.json())["alerts"]:
            self.told.append((request.match_info["receiver"], alert["status"], alert))
        self._news.set()
        return web.Response()

    async def wait_for(self, receiver: str, status: str, name: str) -> dict[str, Any]:
        """Return the first such message, as soon as it is there."""
        async with asyncio.timeout(ALERT_DEADLINE_S):
            while True:
                for to, what, alert in self.told:
                    if (to, what, alert["labels"]["alertname"]) == (receiver, status, name):
                        return alert
                self._news.clear()
                await self._news.wait()


def test_a_cut_socket_reaches_the_webhook_and_is_resolved_after_healing(room: Room) -> None:
    asyncio.run(_cut_and_heal(room))


async def _cut_and_heal(room: Room) -> None:
    await asyncio.to_thread(room.exchange, "--rate", "50")
    address = urllib.parse.urlsplit(room.exchange_url)
    webhook = Webhook()
    runner, webhook_port = await webhook.start()
    async with FaultProxy("127.0.0.1", address.port or 0) as proxy:
        room.exchange_url = f"http://127.0.0.1:{proxy.port}"
        with metrics_of(room) as ports:
            room.stream()
            room.archive()
        alertmanager_port = await asyncio.to_thread(
            start_alertmanager, room, webhook_port=webhook_port
        )
        prometheus = await asyncio.to_thread(
            partial(
                Prometheus,
                room,
                stream_port=ports.stream,
                archive_port=ports.archive,
                alertmanager_port=alertmanager_port,
            )
        )
        await asyncio.to_thread(room.wait_until_archiving)
        # An alert from before it knows of Alertmanager is told again only after a minute.
        known = prometheus.knows_alertmanager
        await asyncio.to_thread(wait_for, known, what="Prometheus to know Alertmanager")
        connected = partial(prometheus.query, "binance_connection_state == 1")
        await asyncio.to_thread(wait_for, connected, what="the service to be seen connected")
        webhook.told.clear()

        proxy.refuse()
        proxy.cut()
        told = await webhook.wait_for("page", "firing", "BinanceDisconnected")
        assert told["labels"]["instance"] == f"localhost:{ports.stream}"
        assert told["labels"]["severity"] == "critical"
        assert "no connection to Binance" in told["annotations"]["summary"]
        assert told["annotations"]["runbook"].endswith("binance-streaming.md#disconnected")
        assert not [
            one
            for _, status, one in webhook.told
            if status == "resolved" and one["labels"]["alertname"] == "BinanceDisconnected"
        ]

        await proxy.accept()
        healed = await webhook.wait_for("page", "resolved", "BinanceDisconnected")
        assert healed["labels"] == told["labels"]
        assert webhook.tokens == {f"Bearer {TOKEN}"}
    await runner.cleanup()
