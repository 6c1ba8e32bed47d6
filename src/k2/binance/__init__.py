"""The venue: bytes from Binance in, trades and control messages out."""
