"""How rows look on the wire: stream events, REST rows, and the WebSocket frame round them.

PURE. Written from the documented payloads; shares nothing with k2's own decoder.
"""

import json
import struct

from k2.market import StreamKind
from k2.simulator.rows import E8, TapeRow, format_e8, parse_e8


def stream_name(row: TapeRow) -> str:
    """Return the name a client subscribes to: lowercase symbol, suffix in its own case."""
    return f"{row.symbol.lower()}@{row.kind.value}"


def event_json(row: TapeRow, *, combined: bool, microseconds: bool, extra_json: str = "") -> str:
    """Write one stream event; ``extra_json`` comes behind its own fields, from a comma on.

    Source: Binance spot API docs, "Aggregate Trade Streams" and "Trade Streams" (fact sheet 5.1,
    5.2, checked 2026-11-21).
    """
    scale = 1 if microseconds else 1000
    maker = "true" if row.buyer_is_maker else "false"
    best = "true" if row.best_match else "false"
    head = f'"E":{row.event_ts_us // scale},"s":"{row.symbol}"'
    amounts = f'"p":"{row.price}","q":"{row.quantity}"'
    tail = f'"T":{row.trade_ts_us // scale},"m":{maker},"M":{best}{extra_json}'
    if row.kind is StreamKind.AGG_TRADE:
        event = (
            f'{{"e":"aggTrade",{head},"a":{row.row_id},{amounts},'
            f'"f":{row.first_trade_id},"l":{row.last_trade_id},{tail}}}'
        )
    else:
        event = f'{{"e":"trade",{head},"t":{row.row_id},{amounts},{tail}}}'
    return f'{{"stream":"{stream_name(row)}","data":{event}}}' if combined else event


def shutdown_json(*, event_ts_us: int, combined: bool, microseconds: bool) -> str:
    """Write the venue's notice that this server goes away.

    Source: Binance spot API docs, "WebSocket Streams", ``serverShutdown`` (fact sheet 4.2, checked
    2026-11-21).
    """
    event = f'{{"e":"serverShutdown","E":{event_ts_us // (1 if microseconds else 1000)}}}'
    return f'{{"stream":"!serverShutdown","data":{event}}}' if combined else event


def unknown_event_json(*, event_ts_us: int, combined: bool, microseconds: bool) -> str:
    """Write an event of a type that no documentation names."""
    event = f'{{"e":"somethingNew","E":{event_ts_us // (1 if microseconds else 1000)},"x":["y",1]}}'
    return f'{{"stream":"!somethingNew","data":{event}}}' if combined else event


MALFORMED = (
    '{"stream":"btcusdt@aggTrade","data":{"e":"aggTrade","E":1767225600123,"s":"BTCU',
    "",
    "<html>502 Bad Gateway</html>",
    '{"e":"aggTrade","a":}',
)
"""Texts that are not JSON, sent in turn."""


def rest_row(row: TapeRow, *, microseconds: bool) -> dict[str, object]:
    """Build one row of ``aggTrades``, or of ``trades`` and ``historicalTrades`` for a fill."""
    time = row.trade_ts_us if microseconds else row.trade_ts_us // 1000
    if row.kind is StreamKind.AGG_TRADE:
        return {
            "a": row.row_id,
            "p": row.price,
            "q": row.quantity,
            "f": row.first_trade_id,
            "l": row.last_trade_id,
            "T": time,
            "m": row.buyer_is_maker,
            "M": row.best_match,
        }
    return {
        "id": row.row_id,
        "price": row.price,
        "qty": row.quantity,
        "quoteQty": format_e8(parse_e8(row.price) * parse_e8(row.quantity) // E8),
        "time": time,
        "isBuyerMaker": row.buyer_is_maker,
        "isBestMatch": row.best_match,
    }


def compact_json(value: object) -> str:
    """Write JSON as the venue does: no spaces, UTF-8 unescaped."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def text_frame(payload: bytes) -> bytes:
    """Wrap a payload as one unmasked, final WebSocket text frame (RFC 6455, section 5.2)."""
    return _frame(0x1, payload)


def ping_frame(payload: bytes) -> bytes:
    """Wrap up to 125 bytes as a WebSocket PING."""
    return _frame(0x9, payload)


def pong_frame(payload: bytes) -> bytes:
    """Wrap up to 125 bytes as a WebSocket PONG."""
    return _frame(0xA, payload)


def _frame(opcode: int, payload: bytes) -> bytes:
    length = len(payload)
    if length < 126:
        return struct.pack("!BB", 0x80 | opcode, length) + payload
    if length < 65536:
        return struct.pack("!BBH", 0x80 | opcode, 126, length) + payload
    return struct.pack("!BBQ", 0x80 | opcode, 127, length) + payload
