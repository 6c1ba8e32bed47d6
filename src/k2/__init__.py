"""k2: a complete, ordered, duplicate-free, provable record of Binance trades."""

__version__ = "0.1.0"
