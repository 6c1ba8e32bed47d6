"""How Kafka's clients are made."""

from collections.abc import Callable
from typing import Any, NamedTuple

from confluent_kafka import Consumer, Producer


class Clients(NamedTuple):
    """The makers of Kafka's clients; a simulation brings its own, with the same interface."""

    producer: Callable[..., Any]
    """Called with the settings, and ``logger``."""
    consumer: Callable[..., Any]
    """Called with the settings."""


LIBRARY = Clients(Producer, Consumer)
"""confluent-kafka's own."""
