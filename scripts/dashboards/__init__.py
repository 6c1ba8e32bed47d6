"""Developer tool: what the Grafana dashboards show, in; the files of ``config/grafana``, out.

    .venv/bin/python -m scripts.dashboards          # or: make docs

``panels`` knows Grafana, the other modules know k2. The files are checked in: who runs Grafana
needs nothing of this.
"""
