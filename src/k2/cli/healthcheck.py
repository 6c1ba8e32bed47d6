"""``k2 healthcheck``: one question, one line, exit 0 or 1; for containers and scripts.

It imports nothing but the standard library: it runs every few seconds beside the service.
"""

import http.client
import json
import os
import sys
from urllib.parse import urlsplit

DEADLINE_S = 3.0
ANSWER_MAX_BYTES = 1 << 22
VARIABLE, PORT_DEFAULT = "K2_HEALTH_PORT", "8001"
PATHS = {"--ready": "/readyz", "--live": "/livez"}

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
    parts = urlsplit(url)
    try:
        connection = http.client.HTTPConnection(parts.netloc, timeout=DEADLINE_S)
        try:
            connection.request("GET", path)
            reply = connection.getresponse()
            body = reply.read(ANSWER_MAX_BYTES)
        finally:
            connection.close()
    except (OSError, ValueError, http.client.HTTPException) as exc:
        return False, f"no answer from {url}{path}: {exc}"
    return reply.status == 200, f"{_told(body)} ({path}: {reply.status})"


def _told(body: bytes) -> str:
    try:
        found = json.loads(body)
    except ValueError:
        return "an answer that is not ours"
    if not isinstance(found, dict):
        return "an answer that is not ours"
    if "status" in found:
        problems = " ".join(str(one.get("text", "")) for one in found.get("problems", []))
        return f"{found['status']}: {problems}" if problems else str(found["status"])
    if "ready" in found:
        because = ", ".join(found.get("because", []))
        return "ready" if found["ready"] else f"not ready: {because}"
    return "live" if found.get("live") else "an answer that is not ours"
