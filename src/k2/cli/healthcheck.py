"""``k2 healthcheck``: one question, one line, exit 0 or 1; for containers and scripts.

It imports nothing but the standard library: it runs every few seconds beside the service.
"""

import http.client
import json
import os
import sys
from typing import Any
from urllib.parse import urlsplit

DEADLINE_S = 3.0
ANSWER_MAX_BYTES = 1 << 22
VARIABLE, PORT_DEFAULT = "K2_HEALTH_PORT", "8001"
PATHS = {"--ready": "/readyz", "--live": "/livez"}
STATUSES = {"healthy": True, "degraded": True, "unhealthy": False}
"""What /health says, and whether it is good."""

USAGE = f"""\
Usage: k2 healthcheck [--ready | --live] [--url URL]

Ask a running service how it is: /health, or with --ready /readyz, with --live /livez.
Prints one line. Exit codes: 0 good, 1 not good or no answer, 2 cannot be meant.

  --url URL  Where it serves; default http://127.0.0.1:${VARIABLE} or :{PORT_DEFAULT}.

Examples:

  k2 healthcheck                               is k2 stream healthy or degraded?
  k2 healthcheck --ready                       may traffic or a take-over go to it?
  k2 healthcheck --url http://127.0.0.1:8003   the same of k2 archive
"""


def main(words: list[str]) -> int:
    """Ask, print one line, return the exit code."""
    path, url, left = "/health", "", list(words)
    while left:
        word = left.pop(0)
        if word in ("--help", "-h"):
            sys.stdout.write(USAGE)
            return 0
        if word in PATHS:
            path = PATHS[word]
        elif word.startswith("--url=") or (word == "--url" and left):
            url = word.partition("=")[2] or left.pop(0)
        else:
            sys.stderr.write(f"k2: healthcheck does not know {word!r}; see k2 healthcheck --help\n")
            return 2
    url = url or f"http://127.0.0.1:{os.environ.get(VARIABLE) or PORT_DEFAULT}"
    good, line = ask(url, path)
    sys.stdout.write(line + "\n")
    return 0 if good else 1


def ask(url: str, path: str) -> tuple[bool, str]:
    """Return whether the answer is good, and what to say of it."""
    try:
        connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=DEADLINE_S)
        try:
            connection.request("GET", path)
            reply = connection.getresponse()
            body = reply.read(ANSWER_MAX_BYTES)
        finally:
            connection.close()
    except (OSError, ValueError, http.client.HTTPException) as exc:
        return False, f"no answer from {url}{path}: {str(exc).strip()}"
    good, told = _judged(path, body)
    return good and reply.status == 200, f"{told} ({path}: {reply.status})"


def _judged(path: str, body: bytes) -> tuple[bool, str]:
    """Return whether the body says that all is well: another server on our port says 200 too."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        found = None
    said = found if isinstance(found, dict) else {}
    if path == "/health" and (status := str(said.get("status"))) in STATUSES:
        problems = " ".join(
            str(one.get("text", "")) for one in _listed(said, "problems") if isinstance(one, dict)
        )
        return STATUSES[status], f"{status}: {problems}" if problems else status
    if path == "/readyz" and said.get("ready") is True:
        return True, "ready"
    if path == "/readyz" and said.get("ready") is False:
        because = ", ".join(str(one) for one in _listed(said, "because"))
        return False, f"not ready: {because}" if because else "not ready"
    if path == "/livez" and said.get("live") is True:
        return True, "live"
    return False, "an answer that is not ours"


def _listed(said: dict[str, Any], name: str) -> list[Any]:
    found = said.get(name)
    return found if isinstance(found, list) else []
