"""Contract R143, the 24h form: ``pytest tests/soak/test_binance_24h_soak.py``."""

import pytest

from soak.__main__ import ROOT, soak
from soak.profile import PROFILE_NAME

pytestmark = [pytest.mark.soak, pytest.mark.timeout(93_600)]


def test_a_day_of_trades_keeps_every_bound() -> None:
    out = ROOT / "var" / "soak" / "24h"
    assert soak("24h", out=out) == 0, f"see {out}/24h.html"
    assert (out / PROFILE_NAME).exists()
