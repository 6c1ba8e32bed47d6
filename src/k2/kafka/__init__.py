"""Kafka: trades in; Avro records with their position, committed in one transaction, out."""
