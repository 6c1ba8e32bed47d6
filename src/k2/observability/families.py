"""Metric families of plain numbers: the hot path adds to integers, a scrape reads them.

A service has one ``Families``: what it exports, in one place. A family without labels is its own
only series; one with labels makes a series the first time its values are named, so whoever wants a
series present from the start names it at the start. Each series has one writer; a scrape may read
from another thread.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate
from typing import TypeVar

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

S = TypeVar("S")


def _series(
    known: dict[tuple[str, ...], S],
    labels: tuple[str, ...],
    values: tuple[str, ...],
    make: Callable[[], S],
) -> S:
    found = known.get(values)
    if found is None:
        if len(values) != len(labels):
            raise ValueError(f"labels {labels} cannot have the values {values}")
        found = known[values] = make()
    return found


class Number:
    """One series of a counter or gauge."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        """Begin at 0."""
        self.value: float = 0

    def inc(self, amount: float = 1) -> None:
        """Add to it."""
        self.value += amount

    def set(self, value: float) -> None:
        """Replace it. A counter is only ever set to what a plain integer elsewhere has reached."""
        self.value = value


class Spread:
    """One series of a histogram."""

    __slots__ = ("_bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        """Begin empty; ``bounds`` are the upper ends of the buckets, inclusive, without +Inf."""
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        """Count a value, or one that so many records share."""
        self.counts[bisect_left(self._bounds, value)] += times
        self.total += value * times

    @property
    def count(self) -> int:
        """How many values were counted."""
        return sum(self.counts)

    def quantile(self, q: float) -> float | None:
        """Return the upper end of the bucket the quantile lies in; None while empty.

        Above the last bound it is infinite: the histogram does not know better.
        """
        if not (count := self.count):
            return None
        place = bisect_left(list(accumulate(self.counts)), q * count)
        return self._bounds[place] if place < len(self._bounds) else float("inf")


class Counters:
    """A family of counters; its name on the page ends in ``_total``."""

    def __init__(self, name: str, documentation: str, labels: tuple[str, ...]) -> None:
        """Name it without the ``_total``."""
        self.name = name
        self.documentation = documentation
        self.label_names = labels
        self._series: dict[tuple[str, ...], Number] = {}
        if not labels:
            self.labels()

    def labels(self, *values: str) -> Number:
        """Return the series of these label values, at 0 when it is new."""
        return _series(self._series, self.label_names, values, Number)

    def inc(self, amount: float = 1) -> None:
        """Add to the only series of a family without labels."""
        self.labels().inc(amount)

    def set(self, value: float) -> None:
        """Set the only series of a family without labels to what is counted elsewhere."""
        self.labels().set(value)

    @property
    def total(self) -> float:
        """The sum of all series."""
        return sum(number.value for number in list(self._series.values()))

    def metric(self) -> Metric:
        """Return what a scrape shows."""
        metric = CounterMetricFamily(self.name, self.documentation, labels=self.label_names)
        for values, number in list(self._series.items()):
            metric.add_metric(values, number.value)
        return metric


class Gauges(Counters):
    """A family of gauges."""

    def metric(self) -> Metric:
        """Return what a scrape shows."""
        metric = GaugeMetricFamily(self.name, self.documentation, labels=self.label_names)
        for values, number in list(self._series.items()):
            metric.add_metric(values, number.value)
        return metric


class Histograms:
    """A family of histograms."""

    def __init__(
        self, name: str, documentation: str, labels: tuple[str, ...], bounds: tuple[float, ...]
    ) -> None:
        """Name it, and the upper ends of its buckets."""
        self.name = name
        self.documentation = documentation
        self.label_names = labels
        self._bounds = bounds
        self._series: dict[tuple[str, ...], Spread] = {}
        if not labels:
            self.labels()

    def labels(self, *values: str) -> Spread:
        """Return the series of these label values, empty when it is new."""
        return _series(self._series, self.label_names, values, lambda: Spread(self._bounds))

    def observe(self, value: float, times: int = 1) -> None:
        """Count a value in the only series of a family without labels."""
        self.labels().observe(value, times)

    def metric(self) -> Metric:
        """Return what a scrape shows."""
        metric = HistogramMetricFamily(self.name, self.documentation, labels=self.label_names)
        ends = [*(str(float(bound)) for bound in self._bounds), "+Inf"]
        for values, spread in list(self._series.items()):
            buckets = list(zip(ends, accumulate(spread.counts), strict=True))
            # A sum may fall when values can be negative; OpenMetrics then wants none at all.
            total = spread.total if self._bounds[0] >= 0 else None
            metric.add_metric(values, buckets, total)
        return metric


_Family = TypeVar("_Family", Counters, Gauges, Histograms)


class Families(Collector):
    """Everything one service exports."""

    def __init__(self, *shared: "Families") -> None:
        """Begin with families that other services export too."""
        self._families: list[Counters | Histograms] = []
        self._shared = shared
        self._before: list[Callable[[], None]] = []

    def counter(self, name: str, documentation: str, *labels: str) -> Counters:
        """Add a family of counters."""
        return self._add(Counters(name, documentation, labels))

    def gauge(self, name: str, documentation: str, *labels: str) -> Gauges:
        """Add a family of gauges."""
        return self._add(Gauges(name, documentation, labels))

    def histogram(
        self, name: str, documentation: str, *labels: str, bounds: Iterable[float]
    ) -> Histograms:
        """Add a family of histograms."""
        return self._add(Histograms(name, documentation, labels, tuple(bounds)))

    @property
    def own(self) -> list[Counters | Histograms]:
        """Its families, without the shared ones."""
        return list(self._families)

    def before_scrape(self, measure: Callable[[], None]) -> Callable[[], None]:
        """Have something measured just before each scrape; returns what ends that."""
        self._before.append(measure)
        return lambda: self._before.remove(measure)

    def measure(self) -> None:
        """Measure what is measured just before a scrape."""
        for measure in self._before:
            measure()

    def collect(self) -> Iterator[Metric]:
        """Measure what is measured at a scrape, then yield every family."""
        self.measure()
        for one in self._shared:
            yield from one.collect()
        for family in self._families:
            yield family.metric()

    def _add(self, family: _Family) -> _Family:
        self._families.append(family)
        return family
