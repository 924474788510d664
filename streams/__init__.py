"""All input and output: Kafka, Redis and the embedded servers. Knows no finance."""
