"""The exchange in a box: a seed or a recording in; WebSocket streams, REST and a ledger out.

Shares no code with k2's own client of the venue: a simulator that shares the decoder shares its
bugs. What it imitates is written in docs/reference/exchange-in-a-box.md.
"""

from k2.simulator.config import ExchangeConfig
from k2.simulator.control_messages import ErrorShape
from k2.simulator.exchange import Exchange
from k2.simulator.heartbeat import PongCheck
from k2.simulator.ledger import Ledger
from k2.simulator.rows import TapeRow

__all__ = ["ErrorShape", "Exchange", "ExchangeConfig", "Ledger", "PongCheck", "TapeRow"]
