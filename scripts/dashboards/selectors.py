"""Which series the panels ask for: one place, so that no panel shows another service's by mistake.

The jobs are those of ``config/prometheus/prometheus.yml``.
"""

CAPTURE = '{job="binance-stream", instance=~"$instance"}'
FRAMES = '{job="binance-stream", instance=~"$instance", kind=~"trade|rejected"}'
OF_SYMBOLS = '{job="binance-stream", instance=~"$instance", symbol=~"$symbol"}'
TRADES_TOPIC = '{job="binance-stream", instance=~"$instance", topic=~".+[.]binance"}'
ARCHIVE = '{job="k2-archive", instance=~"$instance"}'
ANY_CAPTURE = '{job="binance-stream"}'
BUILDS = '{job=~"binance-stream|k2-archive"}'
