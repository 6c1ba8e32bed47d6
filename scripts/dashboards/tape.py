"""The record itself: holes, gaps, copies, and what could not be used."""

from scripts.dashboards.panels import RED, Query, Told, lines
from scripts.dashboards.selectors import CAPTURE, FRAMES, OF_SYMBOLS
from scripts.dashboards.units import COUNT, MESSAGES_PER_SECOND, PER_SECOND, SECONDS, SHARE

EXCHANGE_LAG = "binance_exchange_lag_seconds_bucket"

PANELS = (
    lines(
        "Holes: waiting, healed",
        Query(f"sum by (symbol) (k2_holes_open{OF_SYMBOLS})", legend="waits {{symbol}}"),
        Query(
            f"sum by (symbol) (increase(k2_holes_healed_total{OF_SYMBOLS}[1h]))",
            legend="healed {{symbol}}",
        ),
        told=Told(
            "Symbols that wait for missing ids now, and how often that was healed in an hour.",
            action="A symbol that waits for minutes: is REST asked (above)? Does this instance "
            "write?",
            runbook="gaps-and-holes",
        ),
        unit=COUNT,
    ),
    lines(
        "Trades fetched by REST",
        Query(
            f"sum by (symbol) (rate(k2_trades_healed_total{OF_SYMBOLS}[5m]))", legend="{{symbol}}"
        ),
        told=Told(
            "What the stream did not bring and REST did: after a start, a cut, a hand-over.",
            action="Steadily above 0: the stream loses trades; see reconnects.",
            runbook="gaps-and-holes",
        ),
        unit=MESSAGES_PER_SECOND,
    ),
    lines(
        "Gaps (last hour)",
        Query(
            f"sum by (severity) (increase(sequence_gaps_detected_total{OF_SYMBOLS}[1h]))",
            legend="{{severity}}",
        ),
        Query(f"sum(increase(k2_trades_declared_total{OF_SYMBOLS}[1h]))", legend="ids declared"),
        Query(f"sum(increase(k2_trades_repaired_total{OF_SYMBOLS}[1h]))", legend="ids repaired"),
        told=Told(
            "Ranges of ids that no source had in time, by length (low below 10 ids, high from "
            "1,000), the ids declared, and those that came after all. All 0 is usual.",
            action="Any: `k2 gaps`. They cost error budget (completeness).",
            runbook="gaps-and-holes",
        ),
        unit=COUNT,
    ),
    lines(
        "Copies dropped",
        Query(
            f"sum by (instance) (rate(duplicate_messages_detected_total{CAPTURE}[5m]))",
            legend="{{instance}}",
        ),
        told=Told(
            "Second copies, mostly the other leg's: about as many as there are trades. They never "
            "reach Kafka.",
            action="0 while trades come: only one leg is live.",
            runbook="connection-keeps-dropping",
        ),
        unit=MESSAGES_PER_SECOND,
    ),
    lines(
        "Silent symbols",
        Query(f"max by (symbol) (k2_symbol_silent{OF_SYMBOLS})", legend="{{symbol}}"),
        told=Told(
            "1 while a symbol is silent for longer than is usual for it.",
            action="`k2 top` says for how long; k2 asks REST meanwhile. For hours: a halted "
            "market.",
            runbook="no-messages",
        ),
        unit=COUNT,
    ),
    lines(
        "From the exchange to us",
        *(
            Query(
                f"histogram_quantile({q}, sum by (instance, le) "
                f"(rate({EXCHANGE_LAG}{CAPTURE}[5m])))",
                legend=f"p{q[2:]} {{{{instance}}}}",
            )
            for q in ("0.50", "0.99")
        ),
        Query(f"k2_clock_offset_seconds{CAPTURE}", legend="our clock is ahead by {{instance}}"),
        told=Told(
            "Our clock at receipt less the exchange's at sending. Below 0 our clock is behind: "
            "read it with the offset, which REST tells to within half of a round trip.",
            action="Far from 0: correct the clock (`k2 doctor` measures it). High: the network.",
            runbook="high-latency",
        ),
        unit=SECONDS,
        least=None,
    ),
    lines(
        "Waiting for their transaction",
        Query(f"binance_producer_queue_messages{CAPTURE}", legend="waiting {{instance}}"),
        Query(f"k2_trades_held{CAPTURE}", legend="held behind holes {{instance}}"),
        told=Told(
            "Trades in memory: on their way to Kafka, and held until missing ids are there.",
            action="Grows without end: Kafka is away, or a hole does not heal. Full memory costs "
            "REST calls later, no trades.",
            runbook="kafka-produce-failures",
        ),
        unit=COUNT,
    ),
    lines(
        "Messages that could not be used",
        Query(
            f"sum by (error_type) (rate(binance_message_errors_total{CAPTURE}[5m])) "
            # Per copy, as errors are counted: both legs bring the same mistake.
            f"/ scalar(sum(rate(k2_frames_total{FRAMES}[5m])))",
            legend="{{error_type}}",
        ),
        told=Told(
            "Their share of all messages, by what was wrong. Each is a dead letter. 0 is usual.",
            action="`k2 dlq show` prints them. Above 5 %: Binance changed a format, or "
            "something between it and us alters frames.",
            runbook="high-error-rate",
        ),
        unit=SHARE,
        limits={0.05: RED},
    ),
    lines(
        "Dead letters",
        Query(
            f"sum by (error_type) (rate(binance_dlq_records_total{CAPTURE}[5m]))",
            legend="{{error_type}}",
        ),
        Query(
            f"sum(rate(binance_dlq_write_errors_total{CAPTURE}[5m]))", legend="could not be written"
        ),
        Query(f"sum(rate(k2_dlq_not_sent_total{CAPTURE}[5m]))", legend="not in Kafka"),
        told=Told(
            "Letters written, and letters that could not be: those are lost as evidence.",
            action="`k2 dlq list`; after the cause is mended `k2 dlq replay`. Could not be "
            "written: disk.",
            runbook="dead-letters",
        ),
        unit=PER_SECOND,
    ),
)
