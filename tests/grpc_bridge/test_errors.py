"""Errors as a client of gRPC sees them."""

import pytest
from google.rpc import status_pb2

from grpc_bridge.errors import StreamInterruptedError, failure_of, status_of
from grpc_bridge.fanout.choice import Choice, check_names
from grpc_bridge.fanout.errors import BadSelectionError, SlowReaderError
from mystocks.v1.market_pb2 import NextPosition, ResumeToken
from schemas.errors import ConfigurationError, InvalidInputError, MyStocksError, UnavailableError
from schemas.requests import Code, RequestFailedError
from tests.grpc_bridge.rig import unpacked


def token_of_partitions(count: int) -> ResumeToken:
    places = [NextPosition(partition=p, row=10**12, offset=10**12) for p in range(count)]
    return ResumeToken(topic_id="a" * 22, next=places)


TOKEN = token_of_partitions(8)


def details(error: MyStocksError) -> dict[str, object]:
    return unpacked(status_of(error).SerializeToString())


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RequestFailedError(Code.NOT_FOUND, "x"), Code.NOT_FOUND),
        (BadSelectionError("x", "selection.names"), Code.INVALID_ARGUMENT),
        (SlowReaderError("x", b""), Code.RESOURCE_EXHAUSTED),
        (InvalidInputError("x"), Code.INVALID_ARGUMENT),
        (ConfigurationError("x"), Code.FAILED_PRECONDITION),
        (UnavailableError("x"), Code.UNAVAILABLE),
        (MyStocksError("x"), Code.INTERNAL),
    ],
)
def test_every_error_has_a_code(error, code):
    assert failure_of(error).code is code
    assert status_of(error).code == code


def test_the_field_to_blame_and_the_time_to_wait_are_details():
    found = details(
        RequestFailedError(Code.INVALID_ARGUMENT, "bad", field="rows.close[3]", retry_after_s=1.5)
    )
    violation = found["BadRequest"].field_violations[0]
    assert (violation.field, violation.description) == ("rows.close[3]", "bad")
    assert found["RetryInfo"].retry_delay.ToMilliseconds() == 1500


def test_a_slow_reader_gets_its_token():
    found = details(SlowReaderError("slow", TOKEN.SerializeToString()))
    assert found["StreamInterrupted"].resume == TOKEN
    assert found["RetryInfo"].retry_delay.seconds == 1


def test_a_token_of_200_partitions_still_comes():
    token = token_of_partitions(200)
    found = details(SlowReaderError("slow" * 50, token.SerializeToString()))
    assert found["StreamInterrupted"].resume == token


@pytest.mark.parametrize("count", [0, 3, 100_000])
def test_an_interruption_names_requests_and_fits_into_a_trailer(count):
    numbers = list(range(10**9, 10**9 + count))
    error = StreamInterruptedError(
        Code.UNAVAILABLE,
        "m" * 2000,
        resume=TOKEN.SerializeToString(),
        unacknowledged=numbers,
        retry_after_s=1.0,
    )
    status = status_of(error)
    found = unpacked(status.SerializeToString())["StreamInterrupted"]
    assert found.resume == TOKEN
    kept = list(found.unacknowledged)
    assert kept == numbers[: len(kept)]
    assert len(kept) == count or len(kept) > 50
    assert fits_into_trailers(status)
    assert isinstance(status, status_pb2.Status)


def fits_into_trailers(status) -> bool:
    # The message once as text and once in the details, which travel as base64.
    return len(status.message) + status.ByteSize() * 4 / 3 < 8 * 1024 - 512


def test_an_unknown_feature_of_a_large_set_fits_into_a_trailer():
    columns = tuple(f"macd_{i}_{i + 9}_{i + 5}_signal" for i in range(1000))
    with pytest.raises(BadSelectionError) as caught:
        check_names(Choice(names=("nope",)), columns)
    message = str(caught.value)
    assert "macd_0_9_5_signal, " in message
    assert "and 980 more, was 'nope' (selection.names)" in message
    status = status_of(caught.value)
    assert fits_into_trailers(status)
    assert status.message == message


@pytest.mark.parametrize("error", [MyStocksError, lambda text: BadSelectionError(text, "f" * 40)])
def test_a_long_message_is_cut(error):
    status = status_of(error("m" * 3000))
    assert fits_into_trailers(status)
    assert status.message == "m" * 1499 + "…"


@pytest.mark.parametrize(
    "end",
    [
        lambda resume: SlowReaderError("slow" * 100, resume),
        lambda resume: StreamInterruptedError(
            Code.UNAVAILABLE, "m" * 2000, resume=resume, unacknowledged=[10**9] * 100
        ),
    ],
    ids=["a slow reader", "an interruption"],
)
def test_a_token_of_very_many_partitions_is_left_to_the_responses(end):
    status = status_of(end(token_of_partitions(1000).SerializeToString()))
    assert fits_into_trailers(status)
    assert not unpacked(status.SerializeToString())["StreamInterrupted"].HasField("resume")
