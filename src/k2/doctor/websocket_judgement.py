"""PURE: what an opened stream did."""

import msgspec

from k2.doctor.finding import Finding, Unseen, duration_text, fail, ok, warn
from k2.doctor.reach_judgement import Place


class StreamSeen(msgspec.Struct, frozen=True):
    """What happened after the WebSocket was opened; a time that is None did not come."""

    asked: tuple[str, ...]
    """Stream names subscribed to."""
    waited_s: float
    opened_s: float
    pong_s: float | None = None
    """From our PING control frame to the PONG."""
    acknowledged_s: float | None = None
    first_trade_s: float | None = None
    refused: str = ""
    """The server's words for no."""
    misread: str = ""
    """Why a frame could not be decoded."""
    ended: bool = False
    """The server hung up meanwhile."""


def judge_stream(place: Place, seen: StreamSeen | Unseen) -> list[Finding]:
    """Judge opening, heartbeat, subscription and data, in this order."""
    if isinstance(seen, Unseen):
        return [
            fail(
                f"{place} WebSocket",
                seen.reason,
                fix=f"correct the path in {place.setting} (/ws or /stream); an HTTP 418 or 429 "
                "is the venue's: wait; a 403 or 451 too: connect from elsewhere",
            )
        ]
    return [
        ok(f"{place} WebSocket", f"opened in {duration_text(seen.opened_s)}"),
        _ping(place, seen),
        *_subscription(place, seen),
    ]


def _ping(place: Place, seen: StreamSeen) -> Finding:
    check = f"{place} PING"
    if seen.pong_s is not None:
        return ok(check, f"PONG after {duration_text(seen.pong_s)} (control frames)")
    return fail(
        check,
        f"no PONG within {duration_text(seen.waited_s)}{_end(seen)}",
        fix="a proxy or firewall swallows control frames or the connection: let it pass WebSockets",
    )


def _subscription(place: Place, seen: StreamSeen) -> list[Finding]:
    check = f"{place} subscription"
    streams = ", ".join(seen.asked[:3]) + (" ..." if len(seen.asked) > 3 else "")
    if seen.refused:
        return [fail(check, f"refused: {seen.refused}", fix="correct BINANCE_SYMBOLS")]
    if seen.acknowledged_s is None:
        return [
            fail(
                check,
                f"{streams}: no acknowledgement within {duration_text(seen.waited_s)}{_end(seen)}",
                fix=f"is {place.setting} a Binance market stream? Try the other address; "
                "too many requests are answered by hanging up",
            )
        ]
    found = [ok(check, f"{streams}: acknowledged after {duration_text(seen.acknowledged_s)}")]
    check = f"{place} first trade"
    if seen.misread:
        found.append(
            fail(
                check,
                f"a frame that k2 cannot read: {seen.misread}",
                fix="see what came with `k2 stream` and its dead letters (K2_DLQ_DIR); update k2",
            )
        )
    elif seen.first_trade_s is None:
        found.append(
            warn(
                check,
                f"none of {streams} within {duration_text(seen.waited_s)}{_end(seen)}",
                fix="quiet or not listed? Look at BINANCE_SYMBOLS, ask REST for the newest trade; "
                "an acknowledgement alone proves nothing, unknown names get one too",
            )
        )
    else:
        found.append(ok(check, f"after {duration_text(seen.first_trade_s)}"))
    return found


def _end(seen: StreamSeen) -> str:
    return ": the server hung up" if seen.ended else ""
