"""``make soak``: run the services for a while on a real Kafka and report what they used."""

import sys
import tempfile
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from integration.interruptible import run_to_the_end, say
from k2.local.background import BackgroundStack
from k2.local.stack import Stack
from soak.forms import FORMS, Form
from soak.profile import PROFILE_NAME, Profile, Sample
from soak.run import INTERRUPTED, run_soak

ROOT = Path(__file__).parents[2]
OUT = ROOT / "var" / "soak"

app = App(
    name="soak",
    help="Run capture and archive for a while on a real Kafka, and judge memory, rate and proof.",
    help_epilogue=(
        "Examples:\n\n"
        "  make soak\n\n"
        '  make soak ARGS="1h --out docs/soak"\n\n'
        "Exit codes: 0 every bound kept, 1 not, 2 no such form, 130 interrupted."
    ),
)


@app.default
def soak(
    form: str = "short",
    *,
    out: Path = OUT,
    state_dir: Path | None = None,
    quiet: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Run one form; Ctrl-C ends it with a report of what was.

    Args:
        form: short (3 minutes), 1h, 12h or 24h; 30 minutes of warm-up come before the hours.
        out: Where the report (FORM.html) and the record (binance_soak_memory_profile.json) go.
        state_dir: Where Kafka, the lake and the logs are kept, and stay; default a temporary
            folder that is removed.
        quiet: Say only the verdict.
    """
    chosen = FORMS.get(form)
    if chosen is None:
        say(f"no such form: {form} ({', '.join(FORMS)})", stream=sys.stderr)
        return 2
    if state_dir is not None:
        state_dir.mkdir(parents=True, exist_ok=True)
        profile = _run(chosen, state_dir, out, quiet=quiet)
    else:
        with tempfile.TemporaryDirectory(prefix="k2-soak-") as folder:
            profile = _run(chosen, Path(folder), out, quiet=quiet)
    _say_verdict(profile)
    say(f"written: {out / form}.html, {out / PROFILE_NAME}")
    if profile.test_metadata.ended.startswith(INTERRUPTED):
        return 130
    return 0 if profile.kept else 1


def _run(form: Form, folder: Path, out: Path, *, quiet: bool) -> Profile:
    room = folder / "room"
    room.mkdir(exist_ok=True)
    with BackgroundStack(
        Stack(state_dir=folder / "stack", kafka_port=None, registry_port=None)
    ) as stack:
        return run_soak(form, stack, room, out, prefix="soak", say=_say_nothing if quiet else _say)


def _say(sample: Sample) -> None:
    p99 = "" if sample.latency_p99_ms is None else f", p99 {sample.latency_p99_ms:g} ms"
    say(
        f"{sample.elapsed_s / 60:8.1f} min  capture {sample.rss_mb:.1f} MB, archive "
        f"{sample.archive_rss_mb:.1f} MB, {sample.message_rate:.0f}/s, "
        f"{sample.rotations} rotations{p99}"
    )


def _say_nothing(_sample: Sample) -> None:
    pass


def _say_verdict(profile: Profile) -> None:
    for check in profile.test_metadata.checks:
        verdict = "ok    " if check.kept else "BROKEN"
        say(f"{verdict} {check.what}: {check.found} ({check.bound})")


if __name__ == "__main__":
    run_to_the_end(app)
