"""The micro-batch runtime on Kafka: consume, transaction, state snapshot, restore, dead letters."""
