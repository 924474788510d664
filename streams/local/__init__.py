"""Embedded Apache Kafka and Valkey, and the supervision of role processes."""
