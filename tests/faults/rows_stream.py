"""Streams that lack, repeat, mix up or invent trades."""

from faults.bench import Bench
from faults.matrix import row

GROUP = "Streams"
SYMBOL = "BTCUSDT"
AGG = "aggTrade"


@row(GROUP, "One leg misses 200 trades.", rest_calls_max=0, healed_max=0)
def one_leg_misses_ids(bench: Bench) -> None:
    with bench.fault():
        bench.stream_fault("skip", leg="a", count=200)
        bench.go_on(2)


@row(GROUP, "Both legs miss 50 trades of one symbol and 150 of any.", quick=True)
def both_legs_miss_ids(bench: Bench) -> None:
    with bench.fault():
        bench.stream_fault("skip", count=50, symbol=SYMBOL)
        bench.stream_fault("skip", count=150)
        bench.go_on(2)


@row(
    GROUP,
    "Both legs send 2,000 trades twice and 2,000 in reversed blocks of 10 (a quiet symbol's block "
    "may stay open for longer than a leg is waited for: REST is asked then).",
    rest_calls_max=20,
    quick=True,
)
def duplicates_and_reorder(bench: Bench) -> None:
    with bench.fault():
        bench.stream_fault("duplicate", count=2000)
        bench.stream_fault("reorder", count=2000, block=10)
        bench.go_on(4)


@row(
    GROUP,
    "Both legs bring a copy of one trade with ids 10^9 too high, 10^9 too low, 50,000 and 30 too "
    "high.",
    quick=True,
)
def absurd_id(bench: Bench) -> None:
    with bench.fault():
        for offset in (10**9, -(10**9), 50_000, 30):
            bench.stream_fault("absurd_id", count=1, symbol=SYMBOL, offset=offset)
            bench.go_on(2)


@row(
    GROUP,
    "Both legs stay subscribed and bring nothing for 20 s; pings go on.",
)
def acknowledged_and_silent(bench: Bench) -> None:
    with bench.fault():
        bench.stream_fault_for(20, "silent")


@row(
    GROUP,
    "One symbol stays subscribed on both legs and is silent for 20 s.",
)
def one_symbol_silent(bench: Bench) -> None:
    with bench.fault():
        bench.stream_fault_for(20, "silent", symbol=SYMBOL)


@row(
    GROUP,
    "One symbol stays subscribed on one leg and is silent there, until that leg is replaced.",
    rest_calls_max=0,
    healed_max=0,
    pause_max_s=0.5,
)
def one_leg_deaf(bench: Bench) -> None:
    with bench.fault():
        bench.stream_fault("silent", leg="a", symbol=SYMBOL)
        bench.until(lambda: bench.first.count("streams_deaf"), "the deaf stream to be found")
        bench.go_on(3)


@row(
    GROUP,
    "Both legs bring 20 frames that are no JSON, 20 unknown events, 200 trades with a new field.",
    quick=True,
)
def malformed_and_unknown(bench: Bench) -> None:
    with bench.fault():
        bench.stream_fault("malformed", count=20)
        bench.stream_fault("unknown_event", count=20)
        bench.stream_fault("extra_field", count=200)
        bench.go_on(2)
    letters = [
        line
        for file in bench.room.dead_letter_dir.glob("*.jsonl")
        for line in file.read_text(encoding="utf-8").splitlines()
    ]
    bench.expect(len(letters) == 80, f"{len(letters)} dead letters, not 80")


@row(GROUP, "The exchange voids 3 trades of one symbol.", declared=3, quick=True)
def void_rows(bench: Bench) -> None:
    with bench.fault():
        bench.stream_fault("void", symbol=SYMBOL, count=3)
        bench.go_on(3)


@row(
    GROUP,
    "Streams and REST lack 3 trades for longer than `K2_HEAL_WAIT_MAX=2`: declared. Then REST has "
    "them: repaired.",
    rate=300,
    settings={"K2_HEAL_WAIT_MAX": "2"},
    declared=3,
    repaired=3,
)
def missing_then_repaired(bench: Bench) -> None:
    with bench.fault():
        newest = bench.freeze()[SYMBOL]
        bench.stream_fault("skip", count=3, symbol=SYMBOL, stream=AGG)
        missing = {"symbol": SYMBOL, "first_id": newest + 1, "last_id": newest + 3, "stream": AGG}
        bench.rest_shows(missing=missing)
        bench.thaw()
        bench.until(lambda: bench.first.count("gap_declared"), "the gap to be declared")
    bench.go_on(1)
    bench.forget_faults()
    bench.until(lambda: bench.first.count("gap_repaired"), "the repair", within_s=180)
