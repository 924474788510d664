"""History of a topic by event time: what is read once is kept on disk."""

from streams.kafka.history.read import read
from streams.kafka.history.result import History

__all__ = ["History", "read"]
