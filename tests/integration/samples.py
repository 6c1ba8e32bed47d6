"""What a service's ``/metrics`` says, sample by sample."""

import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families


@dataclass(frozen=True)
class Samples:
    """One scrape."""

    text: str
    families: dict[str, Metric]
    """By the name a scraper knows the family by: a counter's without ``_total``."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the text format."""
        return cls(text, {one.name: one for one in text_string_to_metric_families(text)})

    @classmethod
    def scrape(cls, port: int) -> Self | None:
        """Ask a service on this machine; None while nobody answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as reply:
                return cls.parse(reply.read().decode())
        except urllib.error.HTTPError:
            raise  # it answers, and wrongly
        except OSError:
            return None

    def value(self, name: str, **labels: str) -> float:
        """Return the sum of a name's samples that have these labels.

        Raises:
            AssertionError: If there is none: absence is not 0.
        """
        found = list(self._matching(name, labels))
        assert found, f"no sample of {name}{labels or ''}"
        return sum(found)

    def labels(self, name: str) -> list[dict[str, str]]:
        """Return the labels of each sample of a name."""
        return [
            sample.labels
            for family in self.families.values()
            for sample in family.samples
            if sample.name == name
        ]

    def _matching(self, name: str, labels: dict[str, str]) -> Iterator[float]:
        for family in self.families.values():
            for sample in family.samples:
                if sample.name == name and labels.items() <= sample.labels.items():
                    yield sample.value
