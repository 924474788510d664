"""What a refused commit means: abort and go on, leave for good, or start again."""

import pytest
from confluent_kafka import KafkaError, KafkaException

from streams.kafka.errors import FencedError, TransactionAbortedError
from streams.kafka.output import ExactlyOnceOutput


class Refusing:
    """A producer whose offsets the group refuses."""

    def __init__(self, code: int) -> None:
        self._code = code

    def begin_transaction(self) -> None: ...

    def send_offsets_to_transaction(self, *_arguments: object) -> None:
        raise KafkaException(KafkaError(self._code, "refused"))


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (KafkaError.FENCED_INSTANCE_ID, TransactionAbortedError),
        (KafkaError.ILLEGAL_GENERATION, TransactionAbortedError),
        (KafkaError.PRODUCER_FENCED, FencedError),
        (KafkaError.INVALID_PRODUCER_EPOCH, FencedError),
    ],
)
def test_only_a_fenced_producer_means_that_another_process_took_over(code, error):
    output = ExactlyOnceOutput(Refusing(code))
    output.begin()
    with pytest.raises(error):
        output.commit([], object())
