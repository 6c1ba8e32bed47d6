"""How long a soak takes and what it must keep (contract R120-R126, R143)."""

from typing import NamedTuple


class Form(NamedTuple):
    """One length of soak; MB as the contract's alerts count them (2**20)."""

    name: str
    warm_up_s: float
    """Before the measured time; shown, not judged."""
    duration_s: float
    sample_every_s: float
    trades_per_s: float
    connection_age_max_s: float
    """Low enough that several rotations fall into the measured time."""
    rss_max_mb: float
    """The run ends at once above this."""
    growth_max_mb: float
    messages_min: int

    @property
    def samples_expected(self) -> int:
        """One at the beginning, then one each interval."""
        return int(self.duration_s / self.sample_every_s) + 1

    @property
    def rotations_min(self) -> int:
        """Each of two legs, a connection less than the age allows."""
        return 2 * max(1, int(self.duration_s / self.connection_age_max_s) - 1)


# The archive's heap settles within about 700 table commits: 25 minutes as shipped.
FORMS = {
    form.name: form
    for form in (
        Form("short", 60, 120, 1, 100, 40, 400, 10, 1_200),
        Form("1h", 1_800, 3_600, 30, 60, 600, 400, 10, 69_667),
        Form("12h", 1_800, 43_200, 30, 60, 3_600, 450, 30, 432_000),
        Form("24h", 1_800, 86_400, 30, 60, 14_400, 450, 50, 864_000),
    )
}
DURATION_SHARE_MIN = 0.98
SAMPLE_SHARE_MIN = 0.95
MESSAGE_RATE_MIN = 10.0
LEAK_SCORE_GOOD_BELOW = 0.5
