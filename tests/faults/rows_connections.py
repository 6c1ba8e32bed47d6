"""Connections that end, hang or are replaced."""

import signal

from faults.bench import Bench
from faults.matrix import row

GROUP = "Connections"
LEGS = ("a", "b")
PATIENT = {"BINANCE_RECONNECT_DELAY_MAX": "5"}
"""The other rows try each second: a minute of that uses up the venue's connection attempts."""


@row(GROUP, "The exchange closes both legs at once with 1001.", quick=True)
def clean_close(bench: Bench) -> None:
    with bench.fault():
        bench.drop("close")


@row(GROUP, "The proxy resets (RST) both legs at once.", quick=True)
def reset(bench: Bench) -> None:
    with bench.fault():
        for leg in LEGS:
            bench.legs[leg].order("cut")


@row(GROUP, "The exchange closes both legs with 1008 `Too many requests`.")
def close_1008(bench: Bench) -> None:
    with bench.fault():
        bench.drop("close", code=1008, reason="Too many requests")


@row(
    GROUP,
    "Both legs, and whatever is opened instead, are half-open for 40 s: nothing comes, TCP stays.",
)
def half_open(bench: Bench) -> None:
    with bench.fault():
        bench.stream_fault_for(40, "half_open")


@row(
    GROUP,
    "One leg is half-open for 40 s.",
    rest_calls_max=0,
    healed_max=0,
    pause_max_s=0.5,
)
def one_leg_half_open(bench: Bench) -> None:
    with bench.fault():
        bench.stream_fault_for(40, "half_open", leg="a")


@row(GROUP, "Both legs hold all trades back for 15 s, then send them late; pings go on.")
def stall_with_pings(bench: Bench) -> None:
    with bench.fault():
        bench.stream_fault_for(15, "stall")


@row(
    GROUP,
    "The proxy lets through 20 kB/s of each leg for 40 s: the exchange (with a buffer of 1 MiB) "
    "cuts its slow reader.",
    exchange_config={"send_buffer_max_bytes": 1 << 20},
)
def slow_reader(bench: Bench) -> None:
    with bench.fault():
        for leg in LEGS:
            bench.legs[leg].order("throttle", bytes_per_s=20_000, direction="to_client")
        bench.go_on(40)
        for leg in LEGS:
            bench.legs[leg].order("throttle", bytes_per_s=None)
    cut = bench.status()["counts"].get("connections ended: slow reader", 0)
    bench.notes.append(f"the exchange cut {cut} connections")


@row(
    GROUP,
    "The exchange announces `serverShutdown` on both legs and closes 5 s later.",
    rest_calls_max=0,
    healed_max=0,
    pause_max_s=0.5,
    quick=True,
)
def server_shutdown(bench: Bench) -> None:
    with bench.fault():
        bench.announce_shutdown(lead_s=5.0)
        bench.go_on(6)


@row(
    GROUP,
    "The exchange ends each connection at its age limit (24 h there, 8 s here), for 30 s.",
    exchange_config={"connection_age_max_s": 8.0},
)
def age_limit(bench: Bench) -> None:
    with bench.fault():
        bench.go_on(30)
    ended = bench.status()["counts"].get("connections ended: age", 0)
    bench.expect(ended, "no connection reached its age")
    bench.notes.append(f"{ended} connections ended by age")


@row(
    GROUP,
    "Each leg is replaced about every 3 s (`BINANCE_CONNECTION_AGE_MAX=3`), for 30 s.",
    settings={"BINANCE_CONNECTION_AGE_MAX": "3"},
    rest_calls_max=0,
    healed_max=0,
    pause_max_s=0.5,
)
def rotation(bench: Bench) -> None:
    with bench.fault():
        bench.go_on(30)
    rotations = bench.first.count("rotation_triggered")
    bench.expect(rotations >= 10, f"only {rotations} rotations")
    bench.notes.append(f"{rotations} rotations")


@row(
    GROUP,
    "One leg trails the other by 50 ms, for 60 s: nothing is wrong with it.",
    rest_calls_max=0,
    healed_max=0,
)
def one_leg_trails(bench: Bench) -> None:
    with bench.fault():
        bench.legs["b"].order("delay", delay_s=0.05)
        bench.go_on(60)
    for event in ("streams_deaf", "rotation_triggered"):
        bench.expect(not bench.first.count(event), f"{event} for a leg that merely trails")


@row(
    GROUP,
    "The process is stopped (SIGSTOP) for 2 s: shorter than its lease, pings are answered late; "
    "a standby listens.",
    instances=2,
    exchange_flags=("--ping-interval", "1", "--ping-timeout", "10"),
    pause_max_s=3.5,
)
def ping_answered_late(bench: Bench) -> None:
    writer = bench.writer
    with bench.fault():
        writer.process.signal(signal.SIGSTOP)
        bench.go_on(2)
        writer.process.signal(signal.SIGCONT)


@row(
    GROUP,
    "The only process is stopped (SIGSTOP) for 65 s: the exchange gives up on its pongs.",
)
def stopped_65_s(bench: Bench) -> None:
    with bench.fault():
        bench.first.process.signal(signal.SIGSTOP)
        bench.go_on(65)
        bench.first.process.signal(signal.SIGCONT)


@row(
    GROUP,
    "One leg is cut and refused for 10 s.",
    rest_calls_max=0,
    healed_max=0,
    pause_max_s=0.5,
    quick=True,
)
def one_leg_dies(bench: Bench) -> None:
    with bench.fault():
        bench.legs["a"].break_off()
        bench.go_on(10)
        bench.legs["a"].order("accept")


@row(
    GROUP,
    "Both legs are cut and refused for 60 s, REST can be reached; healing is timed from the "
    "first new connection.",
    heal_max_s=5.0,
    settings=PATIENT,
)
def both_legs_cut_60_s(bench: Bench) -> None:
    _cut_and_reconnect(bench, rest=False)


@row(
    GROUP,
    "Both legs and REST are cut and refused for 60 s; healing is timed from the first new "
    "connection.",
    heal_max_s=5.0,
    settings=PATIENT,
)
def network_cut_60_s(bench: Bench) -> None:
    _cut_and_reconnect(bench, rest=True)


def _cut_and_reconnect(bench: Bench, *, rest: bool) -> None:
    proxies = [*bench.legs.values(), *([bench.rest] if rest else [])]
    bench.begin_fault()
    for proxy in proxies:
        proxy.break_off()
    bench.go_on(60)
    connected = bench.first.count("Connected")
    for proxy in proxies:
        proxy.order("accept")
    bench.until(lambda: bench.first.count("Connected") > connected, "a new connection")
    bench.end_fault()
