"""Envelopes of stored state: what was written is read, and nothing else is taken for it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.kafka.errors import StateNotRestorableError
from streams.kafka.snapshots import ChunkHeader, CommitMark, decode_chunk, encode_chunk

HEADER = ChunkHeader("hash", 4, 1, 7, "1:0", 123, 45)


@given(st.binary())
def test_a_chunk_comes_back_as_it_was_written(payload):
    assert decode_chunk(encode_chunk(HEADER, payload)) == (HEADER, payload)


@given(st.binary(min_size=1), st.data())
def test_one_changed_byte_is_noticed(payload, data):
    value = bytearray(encode_chunk(HEADER, payload))
    position = data.draw(st.integers(0, len(value) - 1))
    value[position] ^= data.draw(st.integers(1, 255))
    with pytest.raises(StateNotRestorableError):
        decode_chunk(bytes(value))


@given(st.binary())
def test_any_other_bytes_are_refused(value):
    with pytest.raises(StateNotRestorableError):
        decode_chunk(value)


def test_a_chunk_of_a_later_version_is_refused_by_its_number():
    value = bytearray(encode_chunk(HEADER, b""))
    value[7] = 9
    with pytest.raises(StateNotRestorableError, match="was format 9"):
        decode_chunk(bytes(value))


def test_a_newer_chunk_replaces_the_older_under_the_same_key():
    newer = ChunkHeader("hash", 4, 1, 7, "1:0", 999, 99)
    assert newer.key == HEADER.key == b"hash/1/7"


def test_a_commit_mark_fits_into_offset_metadata():
    mark = CommitMark(2**62, "9999:" + "9" * 19, 2**62, 2**62, 10**6, 2**62, "f" * 32)
    assert CommitMark.decode(mark.encode()) == mark
    assert len(mark.encode()) < 4096


@given(st.text())
def test_other_metadata_is_not_taken_for_a_mark(text):
    assert CommitMark.decode(text) is None
