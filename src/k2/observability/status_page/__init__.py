"""The status page: markup, style and script of this folder as one page that loads nothing else."""

import base64
import hashlib
from importlib.resources import files
from typing import NamedTuple


class Page(NamedTuple):
    """A page and what a browser may do with it."""

    body: bytes
    policy: str
    """Content-Security-Policy: exactly the script and style in it, and its own server."""


def status_page() -> Page:
    """Return the page; the policy names its script and style by their hashes."""
    folder = files(__name__)
    markup, style, script = (
        (folder / name).read_text(encoding="utf-8")
        for name in ("status.html", "status.css", "status.js")
    )
    body = markup.replace("/*style*/", style).replace("/*script*/", script)
    policy = (
        f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )
    return Page(body.encode(), policy)


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
