"""Debian's Chromium on the status page, by Playwright; nothing is downloaded."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from axe_playwright_python.sync_playwright import (  # type: ignore[import-untyped]
    Axe,  # it ships no type information
)
from playwright.sync_api import ConsoleMessage, Page, ViewportSize, sync_playwright

from system.conftest import program

SCREENSHOTS = os.environ.get("STATUS_SCREENSHOTS", "")
"""A folder to write screenshots to, such as docs/images; empty writes none."""

DESKTOP = ViewportSize(width=1280, height=760)
PHONE = ViewportSize(width=390, height=844)
DEADLINE_S = 30.0


@dataclass
class Seen:
    """One open page, and what it complained of and asked for."""

    page: Page
    complaints: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def text(self, selector: str) -> str:
        """Return what an element shows."""
        return self.page.inner_text(selector)

    def wait(self, condition: str) -> None:
        """Wait until a JavaScript expression is true."""
        # Not Playwright's own wait: that needs eval, which the page's policy forbids.
        end_s = time.monotonic() + DEADLINE_S
        while not self.page.evaluate(condition):
            assert time.monotonic() < end_s, f"not within {DEADLINE_S:g} s: {condition}"
            self.page.wait_for_timeout(50)

    def wait_headline(self, part: str) -> None:
        """Wait until the headline says so."""
        self.wait(f"document.getElementById('headline').textContent.includes({part!r})")

    def violations(self) -> list[str]:
        """Return what axe-core finds wrong."""
        found = Axe().run(self.page)
        return [
            f"{one['id']}: {one['help']}: {[node['html'][:120] for node in one['nodes'][:3]]}"
            for one in found.response["violations"]
        ]

    def shoot(self, name: str) -> None:
        """Write a screenshot, if they are wanted."""
        if SCREENSHOTS:
            path = Path(SCREENSHOTS) / f"status-{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            self.page.screenshot(path=path, full_page=True, animations="disabled")


@contextmanager
def open_page(
    url: str, *, scheme: Literal["light", "dark"] = "light", viewport: ViewportSize = DESKTOP
) -> Iterator[Seen]:
    """Open the page in a browser of its own."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program("chromium"),
            # In CI it is root in a container: no sandbox, and no /dev/shm worth the name.
            args=["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"],
        )
        try:
            page = browser.new_page(viewport=viewport, color_scheme=scheme)
            seen = Seen(page)

            def complained(message: ConsoleMessage) -> None:
                if message.type in ("error", "warning"):
                    seen.complaints.append(message.text)

            page.on("console", complained)
            page.on("pageerror", lambda error: seen.complaints.append(str(error)))
            page.on("request", lambda request: seen.asked.append(request.url))
            page.goto(url)
            yield seen
        finally:
            browser.close()
