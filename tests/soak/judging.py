"""PURE: what a soak measured in, one check a bound out."""

import statistics
from typing import NamedTuple

from soak.forms import (
    DURATION_SHARE_MIN,
    LEAK_SCORE_GOOD_BELOW,
    MESSAGE_RATE_MIN,
    SAMPLE_SHARE_MIN,
    Form,
)
from soak.profile import Check, Sample, summary


class Outcome(NamedTuple):
    """What is known beside the samples once everything has ended."""

    ended: str
    schema_errors: int
    """Messages refused by the capture, and dead letters of both."""
    alarming_lines: list[str]
    """Log lines with a word the runbooks grep for."""
    proof: str
    """The verdict of ``k2 verify``."""
    proved: bool
    """It is complete, and holds the exchange's newest ids."""
    leak_scores: tuple[float, float]
    """Of capture and archive."""


def judge(form: Form, samples: list[Sample], outcome: Outcome) -> list[Check]:
    """Compare a run with every bound; all are told, whichever failed first."""
    total = summary(samples)
    lasted_s = samples[-1].elapsed_s if samples else 0.0
    rss_peak_mb = max((s.rss_mb for s in samples), default=0.0)
    archive_peak_mb = max((s.archive_rss_mb for s in samples), default=0.0)
    rotations = samples[-1].rotations - samples[0].rotations if samples else 0
    archive_growth_mb = _level_growth([s.archive_rss_mb for s in samples])
    capture_score, archive_score = outcome.leak_scores
    return [
        Check("the run", "completed", outcome.ended, outcome.ended == "completed"),
        _at_least("measured time, s", DURATION_SHARE_MIN * form.duration_s, lasted_s),
        _at_least("samples", SAMPLE_SHARE_MIN * form.samples_expected, len(samples)),
        _at_least("messages", form.messages_min, total.total_messages),
        _more_than("messages a second", MESSAGE_RATE_MIN, total.avg_message_rate),
        _at_most("schema errors", 0, outcome.schema_errors),
        _at_most("capture: RSS, MB", form.rss_max_mb, rss_peak_mb),
        _at_most("archive: RSS, MB", form.rss_max_mb, archive_peak_mb),
        _below("capture: growth, MB", form.growth_max_mb, total.memory_growth_mb),
        _below("archive: growth, MB", form.growth_max_mb, archive_growth_mb),
        _below("capture: leak score", LEAK_SCORE_GOOD_BELOW, capture_score),
        _below("archive: leak score", LEAK_SCORE_GOOD_BELOW, archive_score),
        _at_least("rotations", form.rotations_min, rotations),
        _at_most("alarming log lines", 0, len(outcome.alarming_lines)),
        Check("k2 verify", "complete, up to the newest ids", outcome.proof, outcome.proved),
    ]


def _level_growth(values: list[float]) -> float:
    """Return from the median of the first tenth to that of the last.

    The archive's memory goes up and down with every table commit; two single samples would
    compare two moments of that.
    """
    if not values:
        return 0.0
    count = max(1, len(values) // 10)
    return statistics.median(values[-count:]) - statistics.median(values[:count])


def _at_least(what: str, bound: float, found: float) -> Check:
    return Check(what, f"≥ {bound:,g}", _number(found), found >= bound)


def _more_than(what: str, bound: float, found: float) -> Check:
    return Check(what, f"> {bound:,g}", _number(found), found > bound)


def _at_most(what: str, bound: float, found: float) -> Check:
    return Check(what, f"≤ {bound:,g}", _number(found), found <= bound)


def _below(what: str, bound: float, found: float) -> Check:
    return Check(what, f"< {bound:,g}", _number(found), found < bound)


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.2f}"
