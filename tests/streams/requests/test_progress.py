"""Offsets that may be committed when requests are answered out of order."""

from hypothesis import given
from hypothesis import strategies as st

from streams.requests.envelope import Envelope, MalformedEnvelopeError
from streams.requests.progress import Progress


@given(st.permutations(range(12)), st.integers(0, 12))
def test_nothing_is_committed_beyond_the_first_request_without_a_reply(order, answered):
    progress = Progress()
    for offset in range(12):
        progress.begin(0, 100 + offset)
    for offset in order[:answered]:
        progress.done(0, 100 + offset)
    open_offsets = order[answered:]
    expected = 100 + min(open_offsets, default=12)
    assert progress.advanced() == ({0: expected} if expected > 100 else {})
    assert progress.advanced() == {}
    assert progress.waiting == len(open_offsets)


def test_a_partition_that_comes_back_begins_where_it_is_read_again():
    progress = Progress()
    progress.begin(3, 10)
    progress.forget(3)
    progress.done(3, 10)
    progress.begin(3, 7)
    assert progress.advanced() == {}
    progress.done(3, 7)
    assert progress.advanced() == {3: 8}


HEADER = st.tuples(
    st.sampled_from(
        ["request_id", "requester", "reply_topic", "reply_partition", "deadline_ms", "group", "x"]
    ),
    st.one_of(st.none(), st.binary(max_size=12)),
)


@given(st.lists(HEADER, max_size=12))
def test_any_headers_are_an_envelope_or_refused(headers):
    try:
        envelope = Envelope.parse(headers)
    except MalformedEnvelopeError:
        return
    assert isinstance(envelope.reply_partition, int)
    assert isinstance(envelope.request_id, bytes)
    assert isinstance(envelope.requester, bytes)


def test_an_envelope_survives_its_headers():
    envelope = Envelope(b"id", b"me", "local.compute", "compute.replies", 3, 1_700_000_000_000)
    assert Envelope.parse(envelope.as_headers()) == envelope
