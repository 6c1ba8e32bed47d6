"""What a service's ``/metrics`` says, as numbers to subtract."""

import math
import urllib.request
from collections import defaultdict
from collections.abc import Mapping
from itertools import pairwise
from typing import NamedTuple

from prometheus_client.parser import text_string_to_metric_families

BUCKET = "_bucket"


class Scrape(NamedTuple):
    """One answer: each sample's value, summed over all labels but a bucket's bound."""

    values: Mapping[str, float]
    buckets: Mapping[str, Mapping[float, float]]
    """Histogram to upper bound to how many were not above it."""

    def value(self, name: str) -> float:
        """Return a sample's value, 0 where it does not exist yet."""
        return self.values.get(name, 0.0)


def scrape(port: int) -> Scrape | None:
    """Ask a service on this machine; None while it does not answer."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as reply:
            return read_metrics(reply.read().decode())
    except OSError:
        return None


def read_metrics(text: str) -> Scrape:
    """Read the text format."""
    values: dict[str, float] = defaultdict(float)
    buckets: dict[str, dict[float, float]] = defaultdict(lambda: defaultdict(float))
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name.endswith(BUCKET):
                bound = float(sample.labels["le"])
                buckets[sample.name.removesuffix(BUCKET)][bound] += sample.value
            else:
                values[sample.name] += sample.value
    return Scrape(dict(values), {name: dict(counts) for name, counts in buckets.items()})


def quantile_s(
    earlier: Mapping[float, float], later: Mapping[float, float], share: float
) -> float | None:
    """Return the value so many observations between two scrapes did not exceed.

    Within a bucket observations count as evenly spread, as Prometheus does it; above the last
    bound it is that bound. None without observations.
    """
    counts = [(0.0, 0.0)] + [
        (bound, later[bound] - earlier.get(bound, 0.0)) for bound in sorted(later)
    ]
    wanted = share * counts[-1][1]
    if not wanted:
        return None
    for (below, fewer), (bound, count) in pairwise(counts):
        if count >= wanted:
            if math.isinf(bound):
                return below
            return below + (bound - below) * (wanted - fewer) / (count - fewer)
    return None
