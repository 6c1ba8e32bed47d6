"""The lake: Kafka records in; Iceberg tables that know what they hold, and can prove it, out."""
