"""Contract R143, the short form: ``pytest tests/soak/test_binance_short_soak.py``."""

import pytest

from soak.__main__ import ROOT, soak
from soak.profile import PROFILE_NAME

pytestmark = [pytest.mark.soak, pytest.mark.timeout(900)]


def test_three_minutes_of_trades_keeps_every_bound() -> None:
    out = ROOT / "var" / "soak" / "short"
    assert soak("short", out=out) == 0, f"see {out}/short.html"
    assert (out / PROFILE_NAME).exists()
