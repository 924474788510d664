"""What a refused commit means: abort and go on, leave for good, or start again."""

import pytest
from confluent_kafka import KafkaError, KafkaException

from streams.kafka.errors import (
    FencedError,
    KafkaUnavailableError,
    OutputFailedError,
    TransactionAbortedError,
)
from streams.kafka.output import AtLeastOnceOutput, ExactlyOnceOutput
from tests.streams.kafka.fakes import Unwatched


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


@pytest.mark.parametrize(("slept_s", "error"), [(9.9, FencedError), (10.0, OutputFailedError)])
def test_a_transaction_that_the_broker_ended_after_a_sleep_asks_for_a_new_process(slept_s, error):
    times = iter([0.0, slept_s])
    producer = Refusing(KafkaError.INVALID_PRODUCER_EPOCH)
    output = ExactlyOnceOutput(producer, timeout_s=10.0, clock=lambda: next(times))
    output.begin()
    with pytest.raises(error):
        output.commit([], object())


class Silent:
    """A producer whose broker takes everything and answers nothing, while time goes by."""

    def __init__(self, answers: tuple[str, ...] = ()) -> None:
        self.now = 0.0
        self.calls: list[str] = []
        self._answers = answers

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def begin_transaction(self) -> None: ...

    def send_offsets_to_transaction(self, _offsets, _group, timeout: float) -> None:
        self._wait("send_offsets", timeout)

    def commit_transaction(self, timeout: float) -> None:
        self._wait("commit", timeout)

    def abort_transaction(self, timeout: float) -> None:
        self._wait("abort", timeout)

    def flush(self, timeout: float) -> int:
        self.now += timeout
        return 1

    def list_topics(self, timeout: float) -> None:
        self._wait("list_topics", timeout)

    def _wait(self, call: str, timeout: float) -> None:
        self.calls.append(call)
        self.now += timeout
        if call not in self._answers:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT, "silent", retriable=True))


def silent(monkeypatch, *answers: str) -> tuple[Silent, ExactlyOnceOutput]:
    producer = Silent(answers)
    monkeypatch.setattr("streams.kafka.output.time", producer)
    output = ExactlyOnceOutput(producer, watch=Unwatched())
    output.begin()
    return producer, output


@pytest.mark.parametrize("calls", [["commit"], ["abort"], ["commit", "abort"]])
def test_calls_share_one_deadline(calls, monkeypatch):
    producer, output = silent(monkeypatch, "send_offsets")
    with output.within(5.0):
        for call in calls:
            with pytest.raises(KafkaUnavailableError, match="did not within"):
                output.commit([], object()) if call == "commit" else output.abort()
    assert producer.now <= 5.1


def test_without_a_deadline_each_call_has_a_minute(monkeypatch):
    producer, output = silent(monkeypatch, "send_offsets")
    with output.within(5.0), pytest.raises(KafkaUnavailableError):
        output.abort()
    began = producer.now
    with pytest.raises(KafkaUnavailableError, match="within 60 s"):
        output.abort()
    assert 60 <= producer.now - began <= 70.1


@pytest.mark.parametrize("call", ["commit", "abort"])
def test_a_client_that_lost_its_coordinator_asks_for_a_new_process(call, monkeypatch):
    producer, output = silent(monkeypatch, "send_offsets", "list_topics")
    with pytest.raises(OutputFailedError, match=f"{call}_transaction.*restart the role"):
        output.commit([], object()) if call == "commit" else output.abort()
    assert producer.now < 45


def test_a_commit_for_which_no_time_is_left_is_not_begun(monkeypatch):
    producer, output = silent(monkeypatch, "send_offsets")
    with output.within(3.0), pytest.raises(TransactionAbortedError):
        output.commit([], object())
    assert producer.calls == ["send_offsets"]


def test_records_that_are_not_taken_in_time_are_repeated(monkeypatch):
    producer = Silent()
    monkeypatch.setattr("streams.kafka.output.time", producer)
    output = AtLeastOnceOutput(producer, lambda _offsets, _asynchronous: None)
    output.begin()
    with output.within(5.0), pytest.raises(TransactionAbortedError):
        output.commit([], object())
    assert producer.now == 5.0
    with pytest.raises(KafkaUnavailableError):
        output.settle()


class Gone(Silent):
    """A broker that has all records and is gone when offsets are to be committed."""

    def flush(self, _timeout: float) -> int:
        return 0

    def commit(self, _offsets: object, asynchronous: bool = False) -> None:
        if not asynchronous:
            # librdkafka's own time-out of a request.
            self._wait("commit of offsets", 60.0)


def test_at_least_once_no_release_waits_for_a_broker_that_is_gone(monkeypatch):
    broker = Gone()
    monkeypatch.setattr("streams.kafka.output.time", broker)
    output = AtLeastOnceOutput(broker, broker.commit)
    output.begin()
    with output.within(5.0):
        output.commit([], object())
    assert broker.now <= 5.0
    assert not output.open
    # In all other places it is worth knowing what became of the offsets.
    output.begin()
    with pytest.raises(TransactionAbortedError, match="commit of offsets: silent"):
        output.commit([], object())
