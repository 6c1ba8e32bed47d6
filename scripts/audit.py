#!/usr/bin/env python3
"""Looks for known vulnerabilities in the locked packages, and for secrets in the tracked files.

``make audit``. Exit 1: something was found. A vulnerability service that cannot be reached is said,
loudly, and is no finding: what is published against a package does not depend on the change that
is being tested. ``AUDIT_REQUIRED=1``, for a release, turns it into exit 1. Secrets are always
searched for, offline; what only looks like one gets ``pragma: allowlist secret`` on its line.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCKS = ("requirements/build.txt", "requirements/run.txt", "requirements/dev.txt")
SERVICES = ("pypi", "osv")
ASK_TIMEOUT_S = 300
PIP_AUDIT = (
    *(sys.executable, "-m", "pip_audit", "--format", "json", "--progress-spinner", "off"),
    *("--disable-pip", "--require-hashes"),
)
SEARCH = (sys.executable, "-m", "detect_secrets.pre_commit_hook", "--no-verify")
NOT_SEARCHED = r"(^requirements/.*\.txt|\.lock|\.ndjson|\.gz|\.png|\.svg|\.checkpoint)$"
"""Hashes by the thousand, and pictures."""


def main() -> int:
    """Do both; return the exit code."""
    vulnerable = [audit(lock) for lock in LOCKS]
    leaking = search_tracked_files()
    if None in vulnerable:
        _say("NOT AUDITED: no vulnerability service could be asked from here")
    missing = None in vulnerable and os.environ.get("AUDIT_REQUIRED") == "1"
    return 1 if leaking or missing or any(vulnerable) else 0


def audit(lock: str) -> list[str] | None:
    """Print and return the vulnerabilities of one lock file; None where nobody could be asked."""
    for service in SERVICES:
        found = judge(ask(lock, service))
        if found is not None:
            _say(f"{lock}: {len(found)} known vulnerabilities ({service})")
            for line in found:
                _say(f"  {line}")
            return found
    return None


def ask(lock: str, service: str) -> str:
    """Return what pip-audit says of a lock file, as JSON; empty where it could not ask."""
    try:
        done = subprocess.run(
            [*PIP_AUDIT, "--vulnerability-service", service, "--requirement", lock],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=ASK_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        return ""
    return done.stdout


def judge(said: str) -> list[str] | None:
    """Return one line for each vulnerability; None unless every package was looked up.

    pip-audit ends with 0 when an index knows none of the packages: a mirror without PyPI's JSON.
    """
    try:
        packages = json.loads(said)["dependencies"]
    except (ValueError, KeyError):
        return None
    if not packages or any("skip_reason" in package for package in packages):
        return None
    return [
        f"{package['name']} {package['version']}: {one['id']}, "
        f"mended in {', '.join(one['fix_versions']) or 'no version'}"
        for package in packages
        for one in package["vulns"]
    ]


def search_tracked_files(root: Path = ROOT) -> bool:
    """Print where secrets seem to be; say whether there are any."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"],  # noqa: S607 - the one on the path
        cwd=root,
        capture_output=True,
        check=True,
    )
    files = [name for name in listed.stdout.decode().split("\0") if name and (root / name).exists()]
    done = subprocess.run(
        [*SEARCH, "--exclude-files", NOT_SEARCHED, *files],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        _say(done.stdout + done.stderr)
    _say(f"secrets: {'FOUND' if done.returncode else 'none'} in {len(files)} tracked files")
    return bool(done.returncode)


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")


if __name__ == "__main__":
    sys.exit(main())
