"""PURE: what REST's answers say of reach, weight and the clock."""

from collections.abc import Sequence
from http import HTTPStatus

import msgspec

from k2.binance.limits import WEIGHT_IN_FLIGHT, WEIGHT_PER_MINUTE
from k2.doctor.finding import Finding, Unseen, duration_text, fail, ok, warn
from k2.doctor.reach_judgement import Place

WEIGHT_SHARE_WARN = 0.7
CLOCK_WARN_S = 0.1
"""Latency is judged against 0.5 s: a clock off by a tenth begins to spoil that."""
CLOCK_FAIL_S = 1.0
"""``recv_ts_ns`` is kept for ever; a second wrong and it is later, or earlier, than it can be."""

_TEAPOT = 418  # the venue's own word for banned


class Answer(msgspec.Struct, frozen=True):
    """One reply."""

    status: int
    took_s: float
    used_weight: int | None = None
    """``X-MBX-USED-WEIGHT-1M``: what this address has used in this minute, by anybody."""
    retry_after_s: int | None = None


class ClockSample(msgspec.Struct, frozen=True):
    """One question for the time: our clock before and after, theirs in between; unix time."""

    asked_s: float
    answered_s: float
    server_s: float


class ClockOffset(msgspec.Struct, frozen=True):
    """The exchange's clock less ours, and how far that may be off either way."""

    offset_s: float
    uncertainty_s: float


def clock_offset(samples: Sequence[ClockSample]) -> ClockOffset:
    """Return the offset of the sample with the shortest round trip.

    Their clock was read somewhere between asking and answer, so half the round trip is what the
    offset may be off by, however lopsided the ways there and back are.

    Args:
        samples: At least one.
    """
    best = min(samples, key=lambda one: one.answered_s - one.asked_s)
    middle_s = (best.asked_s + best.answered_s) / 2
    return ClockOffset(best.server_s - middle_s, (best.answered_s - best.asked_s) / 2)


def judge_answer(place: Place, seen: Answer | Unseen) -> list[Finding]:
    """Judge the reply to ``ping``, and the weight it told."""
    check = f"{place} ping"
    if isinstance(seen, Unseen):
        return [
            fail(
                check,
                seen.reason,
                fix=f"correct {place.setting}, or the way there: no hole can be healed",
            )
        ]
    if seen.status != HTTPStatus.OK:
        return [fail(check, f"HTTP {seen.status}", fix=_remedy(place, seen))]
    return [ok(check, f"HTTP 200 in {duration_text(seen.took_s)}"), _weight(place, seen)]


def judge_clock(place: Place, seen: ClockOffset | Unseen) -> Finding:
    """Judge this machine's clock against the exchange's."""
    check = f"{place} clock"
    if isinstance(seen, Unseen):
        return fail(check, seen.reason, fix=f"is {place.setting} Binance's REST?")
    ahead = "behind" if seen.offset_s > 0 else "ahead of"
    text = (
        f"ours is {duration_text(abs(seen.offset_s))} {ahead} the exchange's, "
        f"give or take {duration_text(seen.uncertainty_s)}"
    )
    certain_s = abs(seen.offset_s) - seen.uncertainty_s
    fix = "synchronise this host's clock: `timedatectl set-ntp true`, or chrony; then restart k2"
    if certain_s >= CLOCK_FAIL_S:
        return fail(check, text, fix=fix)
    if certain_s >= CLOCK_WARN_S:
        return warn(check, text, fix=fix)
    return ok(check, text)


def _weight(place: Place, seen: Answer) -> Finding:
    check = f"{place} weight"
    if seen.used_weight is None:
        return warn(
            check,
            "the answer does not tell the weight used",
            fix=f"is {place.setting} Binance's REST, or a proxy that drops headers?",
        )
    left = max(0, WEIGHT_PER_MINUTE - seen.used_weight)
    text = f"{seen.used_weight} used this minute, {left} left"
    fix = (
        "other programs at this address ask too much: stop them, or give k2 an address of its own;"
        " BINANCE_ADDRESS_SHARE is k2's own part"
    )
    if left <= WEIGHT_IN_FLIGHT:
        return fail(check, text, fix=fix)
    if seen.used_weight >= WEIGHT_PER_MINUTE * WEIGHT_SHARE_WARN:
        return warn(check, text, fix=fix)
    return ok(check, text)


def _remedy(place: Place, seen: Answer) -> str:
    if seen.status in (HTTPStatus.TOO_MANY_REQUESTS, _TEAPOT):
        wait = f"{seen.retry_after_s} s" if seen.retry_after_s is not None else "some minutes"
        return (
            f"over the limit: let nothing at this address ask for {wait}; "
            "lower BINANCE_ADDRESS_SHARE where others share the address"
        )
    if seen.status in (HTTPStatus.FORBIDDEN, HTTPStatus.UNAVAILABLE_FOR_LEGAL_REASONS):
        return (
            "the venue serves this place or address nothing here: "
            f"{place.setting}=https://data-api.binance.vision"
        )
    if seen.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return "the exchange's side: wait, or name another address first in " + place.setting
    return f"correct {place.setting}: host without path, such as https://data-api.binance.vision"
