"""The embedded stack: a real Kafka broker and a real schema registry, from wheels and jars.

In: a state directory, ports. Out: two addresses, and processes that die with their parent.
"""
