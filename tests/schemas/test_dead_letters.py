import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.dead_letters import build_dead_letter, format_rows, parse_rows
from schemas.errors import InvalidInputError
from schemas.topics import DEAD_LETTER_EXTRA_BYTES, MAX_MESSAGE_BYTES

WHERE = {"topic": "market.ticks", "partition": 3, "offset": 42, "group": "g"}


def size(letter):
    pairs = sum(len(name) + len(content) + 10 for name, content in letter.headers)
    return len(letter.key or b"") + len(letter.value or b"") + pairs


def test_a_dead_letter_holds_the_original_and_says_why_and_from_where():
    letter = build_dead_letter(
        b"A", b"value", reason="price is 0", rows=[1, 2, 5], headers=[("trace", b"7")], **WHERE
    )
    assert (letter.key, letter.value) == (b"A", b"value")
    assert letter.headers == [
        ("trace", b"7"),
        ("reason", b"price is 0"),
        ("topic", b"market.ticks"),
        ("partition", b"3"),
        ("offset", b"42"),
        ("group", b"g"),
        ("rows", b"1-2,5"),
    ]


def test_a_tombstone_stays_one():
    assert build_dead_letter(None, None, reason="x", **WHERE).value is None


def test_headers_of_an_earlier_refusal_are_replaced():
    letter = build_dead_letter(
        None, b"v", reason="new", headers=[("reason", b"old"), ("rows", b"9")], **WHERE
    )
    names = [name for name, _ in letter.headers]
    assert names.count("reason") == 1
    assert "rows" not in names


@pytest.mark.parametrize("length", [MAX_MESSAGE_BYTES - 5000, MAX_MESSAGE_BYTES])
def test_the_largest_record_of_the_source_fits_with_its_reason(length):
    letter = build_dead_letter(None, b"x" * length, reason="r" * 9999, **WHERE)
    assert len(letter.value) == length
    assert size(letter) < MAX_MESSAGE_BYTES + DEAD_LETTER_EXTRA_BYTES


def test_what_would_not_fit_is_cut_with_size_and_hash():
    value = bytes(range(256)) * 8000
    letter = build_dead_letter(None, value, reason="big", headers=[("x", b"y" * 99_999)], **WHERE)
    headers = dict(letter.headers)
    assert letter.value == value[: 64 * 1024]
    assert headers["original_bytes"] == str(len(value)).encode()
    assert headers["sha256"] == hashlib.sha256(value).hexdigest().encode()
    assert headers["offset"] == b"42"


@given(st.frozensets(st.integers(0, 262_143), max_size=50) | st.just(frozenset(range(0, 9999, 2))))
def test_rows_come_back_from_their_header(rows):
    text = format_rows(sorted(rows))
    assert parse_rows(text) == rows
    assert len(text) <= 44 * 1024


def test_rows_that_are_none_are_refused():
    for text in ("a", "1-", "bitmap:$"):
        with pytest.raises(InvalidInputError, match="expected rows such as"):
            parse_rows(text)
