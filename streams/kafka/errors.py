"""Errors of the Kafka runtime, and what a librdkafka error means for a transaction."""

from typing import ClassVar

from confluent_kafka import KafkaError, KafkaException

from schemas.errors import MyStocksError, UnavailableError

# EX_TEMPFAIL: another process has taken this one's place. A supervisor must not start it again.
FENCED_EXIT_CODE = 75
# A new process goes on where this one cannot; a supervisor starts it.
RESTART_EXIT_CODE = 70


class KafkaUnavailableError(UnavailableError):
    """No broker answered."""


class DamagedLogError(MyStocksError):
    """A batch of records is not what was written; the client reads no further than to it."""


class FencedError(MyStocksError):
    """Another process with the same transactional id or instance id has taken over."""

    exit_code: ClassVar[int] = FENCED_EXIT_CODE


class MembershipLostError(MyStocksError):
    """The group does not know this member any more.

    Another process has its instance id, or the member came back to a restarted broker while its
    own last request was under way. The transactional id tells which: if there is another process,
    the one that starts later fences the earlier one's producer.
    """

    exit_code: ClassVar[int] = RESTART_EXIT_CODE


class TransactionAbortedError(MyStocksError):
    """The transaction cannot be committed; state and position go back to the last commit."""


class OutputFailedError(MyStocksError):
    """The producer failed for good; a process that is started again has a new one."""

    exit_code: ClassVar[int] = RESTART_EXIT_CODE


class StateNotRestorableError(MyStocksError):
    """State exists but cannot be restored, and the policy says to stop."""

    exit_code: ClassVar[int] = 78


class PartitionCountError(MyStocksError):
    """The number of partitions has changed since the state was written or the process began."""

    exit_code: ClassVar[int] = 78


_FENCED_CODES = frozenset(
    {
        KafkaError._FENCED,
        KafkaError.PRODUCER_FENCED,
        KafkaError.INVALID_PRODUCER_EPOCH,
        KafkaError.FENCED_INSTANCE_ID,
    }
)


def kafka_error(error: KafkaException | KafkaError) -> KafkaError:
    """Returns the librdkafka error inside an exception."""
    return error.args[0] if isinstance(error, KafkaException) else error


def is_fenced(error: KafkaError) -> bool:
    """Whether another process has taken over this client's identity."""
    return error.code() in _FENCED_CODES or (
        error.fatal() and "fenced" in (error.str() or "").lower()
    )
