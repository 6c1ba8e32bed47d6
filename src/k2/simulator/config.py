"""What an exchange in a box can be told."""

from pathlib import Path

import msgspec

from k2.simulator.control_messages import ErrorShape
from k2.simulator.heartbeat import PongCheck


class ExchangeConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of one exchange; the defaults are the venue's documented values.

    Durations are seconds. ``speed`` divides a recording's own pace; infinity plays it at once.
    """

    host: str = "127.0.0.1"
    port: int = 0
    """0 picks a free one."""
    symbols: tuple[str, ...] = ()
    """Listed symbols; empty lists all (with a recording: those it holds)."""
    seed: int = 1
    rate: float = 100.0
    """Aggregates per second over all symbols."""
    tape: Path | None = None
    speed: float = 1.0
    data_dir: Path | None = None
    tick_s: float = 0.02
    """Rows are matched, committed and published in batches of this length."""
    rest_delay_s: float = 0.0
    """How far REST ("Database") trails the stream."""
    ping_interval_s: float = 20.0
    ping_timeout_s: float = 60.0
    pong_check: PongCheck = PongCheck.STRICT
    error_shape: ErrorShape = ErrorShape.FLAT
    control_frames_max: int = 5
    control_frames_window_s: float = 1.0
    flood_ban_s: float = 0.0
    """How long an address is refused after it flooded a connection; 0 never."""
    attempts_max: int = 300
    attempts_window_s: float = 300.0
    connection_age_max_s: float = 86_400.0
    drops_per_hour: float = 0.0
    """Expected random early drops of each connection, half of them without a close frame."""
    send_buffer_max_bytes: int = 8 * 1024 * 1024
    """A reader further behind than this is cut."""
    weight_max: int = 6000
    weight_window_s: float = 60.0
    refusals_before_ban: int = 10
    ban_first_s: float = 120.0

    def __post_init__(self) -> None:
        positive = {
            "rate": self.rate >= 0,
            "speed": self.speed > 0,
            "tick_s": self.tick_s > 0,
            "rest_delay_s": self.rest_delay_s >= 0,
            "ping_interval_s": self.ping_interval_s > 0,
            "ping_timeout_s": self.ping_timeout_s > 0,
            "port": 0 <= self.port < 65536,
        }
        for name, valid in positive.items():
            if not valid:
                raise ValueError(f"{name} is out of range: {getattr(self, name)}")
