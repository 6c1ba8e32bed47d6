"""The connections to Binance: websocket legs, their heartbeat, and REST."""

from scripts.dashboards.panels import (
    GREEN,
    RED,
    YELLOW,
    Meaning,
    Query,
    Told,
    lines,
    timeline,
)
from scripts.dashboards.selectors import CAPTURE
from scripts.dashboards.units import COUNT, PER_SECOND, SECONDS

PANELS = (
    timeline(
        "Connected over time",
        Query(f"binance_connection_state{CAPTURE}", legend="{{instance}}"),
        told=Told(
            "When an instance had no connection at all. One leg's loss does not show here.",
            action="Red on one instance only: its host or network. On all: Binance, or the way "
            "to it.",
            runbook="disconnected",
        ),
        meanings={1: Meaning("CONNECTED", color=GREEN), 0: Meaning("DISCONNECTED", color=RED)},
    ),
    lines(
        "Reconnects by reason (last hour)",
        Query(
            f"sum by (instance, reason) (increase(binance_reconnections_total{CAPTURE}[1h]))",
            legend="{{reason}} {{instance}}",
        ),
        told=Told(
            "Unplanned ones; fewer than 10 a day are expected. The other leg goes on meanwhile.",
            action="Again and again: `k2 doctor ws`. `pong_timeout` points to the network.",
            runbook="connection-keeps-dropping",
        ),
        unit=COUNT,
    ),
    lines(
        "Failed connects and protocol breaches",
        Query(
            f"sum by (instance, error_type) (rate(binance_connection_errors_total{CAPTURE}[5m]))",
            legend="{{error_type}} {{instance}}",
        ),
        told=Told(
            "Attempts that ended before the connection was of use, by the step that failed.",
            action="`dns`, `refused`, `tls` name the step: `k2 doctor` repeats each by itself.",
            runbook="disconnected",
        ),
        unit=PER_SECOND,
    ),
    lines(
        "Connection lifetime",
        Query(f"binance_connection_lifetime_seconds{CAPTURE}", legend="leg {{leg}} {{instance}}"),
        told=Told(
            "Age of each connection: a saw with teeth of 4 hours, the legs half a tooth apart.",
            action="Above 4 h 15 min the rotation is overdue: see the log for "
            "`rotation_triggered`.",
            runbook="rotation-overdue",
        ),
        unit=SECONDS,
        limits={15_300: RED},
    ),
    lines(
        "Rotations (last 6 hours)",
        Query(
            f"sum by (instance, reason) "
            f"(increase(binance_connection_rotations_total{CAPTURE}[6h]))",
            legend="{{reason}} {{instance}}",
        ),
        told=Told(
            "Connections replaced on purpose: the old one ends when the new one has overlapped.",
            action="2 to 4 in 6 hours are right. None after 5 hours: see the lifetime.",
            runbook="rotation-overdue",
        ),
        unit=COUNT,
    ),
    lines(
        "Last heartbeat is this old",
        Query(
            f"time() - (binance_last_pong_timestamp_seconds{CAPTURE} > 0)", legend="{{instance}}"
        ),
        told=Told(
            "Since the server's last PING, or its PONG to ours. It pings every 20 s.",
            action="Above 60 s the connection is dead although it is open; it is left by itself.",
            runbook="disconnected",
        ),
        unit=SECONDS,
        limits={60: YELLOW, 600: RED},
    ),
    lines(
        "First copies by leg",
        Query(
            f"sum by (instance, leg) (rate(k2_leg_first_copies_total{CAPTURE}[5m]))",
            legend="leg {{leg}} {{instance}}",
        ),
        told=Told(
            "Trades of which this leg brought the first copy. Any split is fine.",
            action="A leg at 0 for hours is of no use: see its lag.",
            runbook="connection-keeps-dropping",
        ),
        unit=PER_SECOND,
    ),
    lines(
        "Lag of a leg behind the first copies",
        Query(f"k2_leg_lag_seconds{CAPTURE}", legend="leg {{leg}} {{instance}}"),
        told=Told(
            "How much later a leg's copies come than the other's. Milliseconds are usual.",
            action="Seconds: that way to Binance is congested. The other leg's copies are used "
            "meanwhile.",
            runbook="high-latency",
        ),
        unit=SECONDS,
    ),
    timeline(
        "REST",
        Query(f"circuit_breaker_state{CAPTURE}", legend="{{breaker_name}} {{instance}}"),
        told=Told(
            "Whether REST is asked. Binance closes it for a while to who asks too much.",
            action="Red: holes wait until it opens. Do not restart; that asks even more.",
            runbook="gaps-and-holes",
        ),
        meanings={
            0: Meaning("ASKED", color=GREEN),
            1: Meaning("TOLD TO STAY AWAY", color=RED),
            2: Meaning("TRYING AGAIN", color=YELLOW),
        },
    ),
)
