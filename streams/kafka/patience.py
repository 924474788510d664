"""Asking a broker again that will know in a moment."""

import time
from collections.abc import Callable
from typing import TypeVar

from confluent_kafka import KafkaError, KafkaException

from streams.kafka.errors import kafka_error

Answer = TypeVar("Answer")

_RETRY_S = 0.02
_FOR_A_MOMENT = frozenset(
    {
        # While a partition is new or moves to another broker, or its broker restarts.
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError._UNKNOWN_PARTITION,
        # While a group moves likewise, or a broker that has come back loads it.
        KafkaError.NOT_COORDINATOR,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError._TRANSPORT,
        KafkaError._TIMED_OUT,
    }
)


def patiently(question: Callable[[float], Answer], timeout_s: float) -> Answer:
    """Returns the answer of a broker, however often it has to be asked.

    Args:
        question: Asks; takes how long it may wait for the answer, in seconds.
        timeout_s: How long to go on.

    Raises:
        KafkaException: The broker refused, or did not say in time.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        left = deadline - time.monotonic()
        try:
            return question(max(left, _RETRY_S))
        except KafkaException as error:
            if left <= 0 or kafka_error(error).code() not in _FOR_A_MOMENT:
                raise
            time.sleep(_RETRY_S)
