"""Contract R143, the 1h form: ``pytest tests/soak/test_binance_1h_validation.py``."""

import pytest

from soak.__main__ import ROOT, soak
from soak.profile import PROFILE_NAME

pytestmark = [pytest.mark.soak, pytest.mark.timeout(7_200)]


def test_an_hour_of_trades_keeps_every_bound() -> None:
    out = ROOT / "var" / "soak" / "1h"
    assert soak("1h", out=out) == 0, f"see {out}/1h.html"
    assert (out / PROFILE_NAME).exists()
