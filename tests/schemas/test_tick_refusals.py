"""Bad input is refused with a reason that a person understands, and nothing else is lost."""

import json
import random
import re
import struct

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tick_samples import ENCODERS, TIME, decode, good_batch, good_json

from schemas.ticks.compiled import row_ok
from schemas.ticks.encode import encode_arrow
from schemas.ticks.rules import MAX_EVENT_TIME_NS, tick_problem


def arrow(compression=None, **changed):
    columns = {"symbol": ["A", "B"], "event_time_ns": [TIME, TIME], "price": [1.0, 2.0]} | changed
    batch = pa.record_batch({k: v for k, v in columns.items() if v is not None})
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.ipc.new_stream(sink, batch.schema, options=options) as writer:
        writer.write_batch(batch)
    return sink.getvalue().to_pybytes()


def declared_bomb():
    """One compressed column that claims to hold 100 MiB of prices."""
    value = bytearray(arrow("zstd", price=pa.array(np.full(2, 1.5))))
    body = value.rindex(b"\x28\xb5\x2f\xfd")  # magic number of zstd
    value[body - 8 : body] = struct.pack("<q", 100 * 1024**2)
    return bytes(value)


def many_declared_rows():
    value = bytearray(arrow())
    rows = struct.pack("<q", 2)
    while (at := value.find(rows)) >= 0:
        value[at : at + 8] = struct.pack("<q", 13_107_200)
    return bytes(value)


GARBAGE = random.Random(5).randbytes(1_000_000)

WHOLE = {
    "no value": (None, "no value"),
    "empty": (b"", "empty"),
    "white space": (b" \n", "not a protobuf|white space"),
    "cut JSON": (good_json()[:-5], "malformed JSON"),
    "two JSON values": (good_json() + good_json(), "malformed JSON"),
    "JSON string": (b' "AAPL"', "a string, expected an object or an array"),
    "deep JSON": (b"[" * 100_000, "malformed JSON"),
    "invalid UTF-8": (b'{"symbol":"\xff"}', "malformed JSON"),
    "cut protobuf": (good_batch()[:-3], "not a protobuf TickBatch"),
    "random protobuf": (b"\x0a" + GARBAGE[:50], "not a protobuf TickBatch"),
    "Confluent wire format": (b"\0\0\0\0\1" + good_batch(), "Confluent"),
    "plain text": (b"AAPL,1,2", "first byte is 0x41"),
    "1 MB of garbage": (b"\x80" + GARBAGE, "first byte is 0x80"),
    "1 MB of garbage as JSON": (b"{" + GARBAGE, "malformed JSON"),
    "1 MB of garbage as protobuf": (b"\x0a" + GARBAGE, "not a protobuf TickBatch"),
    "1 MB of garbage as Arrow": (b"\xff" * 4 + GARBAGE, "broken Arrow stream"),
    "cut Arrow": (arrow()[:-60], "broken Arrow stream"),
    "Arrow without schema": (b"\xff\xff\xff\xff\0\0\0\0", "broken Arrow stream"),
    "declared bytes": (declared_bomb(), "104857[0-9]+ bytes after decompression"),
    "declared rows": (many_declared_rows(), "declares 13107200 rows"),
    "Arrow without price": (arrow(price=None), "column price is missing"),
    "Arrow price of strings": (arrow(price=["1", "2"]), "column price is string, expected numbers"),
    "Arrow time of floats": (arrow(event_time_ns=[1.5, 2.5]), "event_time_ns is double"),
    "Arrow symbol of numbers": (arrow(symbol=[1, 2]), "symbol is int64, expected strings"),
    "million empty ticks": (b"\x0a\x00" * 300_000, "300000 ticks, expected at most 262144"),
}


@pytest.mark.parametrize("case", WHOLE)
def test_a_message_that_cannot_be_parsed_is_refused_whole(decoder, case):
    value, pattern = WHOLE[case]
    assert (
        len(value or b"") < 1024 or "1 MB" in case or case in ("deep JSON", "million empty ticks")
    )
    values = [good_json(), value, good_batch(), good_json("C")]
    rows, refusals, names = decode(values, decoder)
    assert [row[9] for row in rows] == [0, 2, 3]
    assert [refusal[:2] for refusal in refusals] == [(1, None)]
    assert re.search(pattern, refusals[0][2]), refusals[0][2]
    assert names == ["GOOD", "C"]


BAD_TICKS = [
    ({"price": float("nan")}, "price is NaN"),
    ({"price": float("inf")}, "price is inf"),
    ({"price": 0.0}, "price is 0, expected a finite number above 0"),
    ({"price": -3.5}, "price is -3.5"),
    ({"size": -1.0}, "size is -1, expected a finite number of at least 0"),
    ({"size": float("nan")}, "size is NaN"),
    ({"symbol": ""}, "symbol is empty"),
    ({"symbol": "A" * 33}, "symbol has 33 bytes, expected at most 32"),
    ({"symbol": "A\n"}, "symbol contains a control character"),
    ({"symbol": "A B"}, "symbol 'A B' has a character outside"),
    ({"symbol": "\u4e2d\u6587"}, "has a character outside"),
    ({"event_time_ns": 1_700_000_000}, "looks like seconds"),
    ({"event_time_ns": 1_700_000_000_000}, "looks like milliseconds"),
    ({"event_time_ns": 1_700_000_000_000_000}, "looks like microseconds"),
    ({"event_time_ns": -5}, "event_time_ns is -5, expected nanoseconds since 1970"),
    ({"bid": -1.0}, "bid is -1"),
    ({"ask": float("inf")}, "ask is inf"),
    ({"sequence": -7}, "sequence is -7, expected at least 0"),
    ({"volume": -0.5}, "volume is -0.5"),
    ({"amount": -0.5}, "amount is -0.5"),
]
NAMES = {
    "symbol": "symbols",
    "event_time_ns": "event_times_ns",
    "price": "prices",
    "size": "sizes",
    "bid": "bids",
    "ask": "asks",
    "sequence": "sequences",
    "volume": "volumes",
    "amount": "amounts",
}


def with_bad_tick(encode, bad):
    """Three ticks, the second of which is bad."""
    if encode.__name__ == "encode_json":
        good = json.dumps({"symbol": "GOOD", "event_time_ns": TIME, "price": 1})
        tick = {"symbol": "BAD", "event_time_ns": TIME, "price": 1.0} | bad
        return f"[{good},{json.dumps(tick)},{good}]".encode()
    columns = {
        "symbols": ["GOOD", "BAD", "GOOD"],
        "event_times_ns": [TIME] * 3,
        "prices": [1.0] * 3,
        "sizes": [0.0] * 3,
    }
    for name, value in bad.items():
        column = columns.setdefault(NAMES[name], [None] * 3)
        column[1] = value
    if encode is encode_arrow and "size" in bad and bad["size"] != bad["size"]:
        columns["sizes"] = pa.array(columns["sizes"], from_pandas=False)
    return encode(**columns)


@pytest.mark.parametrize(("bad", "reason"), BAD_TICKS, ids=lambda value: str(value)[:50])
@pytest.mark.parametrize("encode", ENCODERS)
def test_only_the_bad_tick_of_a_message_is_refused(decoder, encode, bad, reason):
    if encode is ENCODERS[1] and bad.get("size", 0) != bad.get("size", 0):
        value = good_batch({}, {"symbol": "BAD", "size": float("nan")}, {})
    else:
        value = with_bad_tick(encode, bad)
    for slow in (False, True):
        rows, refusals, names = decode([good_json(), value, good_json()], decoder, slow=slow)
        assert [(row[9], row[10]) for row in rows] == [(0, 0), (1, 0), (1, 2), (2, 0)]
        assert [refusal[:2] for refusal in refusals] == [(1, (1,))]
        assert refusals[0][2].startswith("tick 1: ")
        assert reason in refusals[0][2]
        assert names == ["GOOD"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"event_time_ns":%d,"price":1}', "symbol is missing"),
        ('{"symbol":"A","event_time_ns":%d}', "price is missing"),
        ('{"symbol":"A","event_time_ns":%d,"price":"1"}', "price is '1', expected a number"),
        ('{"symbol":7,"event_time_ns":%d,"price":1}', "symbol is a number, expected a string"),
        ('{"symbol":"A","event_time_ns":%d.5,"price":1}', "expected an integer"),
        ('{"symbol":"A","event_time_ns":true,"price":1,"x":%d}', "expected an integer"),
        ('{"symbol":"A","event_time_ns":null,"price":1,"x":%d}', "event_time_ns is missing"),
        ('{"symbol":"A","event_time_ns":%d0,"price":1}', "expected"),
        ('{"symbol":"A","event_time_ns":%d,"price":1,"bid":[]}', "bid is an array"),
        ("[%d]", "tick is a number, expected an object"),
    ],
)
def test_json_fields_of_another_kind_are_named(decoder, text, reason):
    _, refusals, _ = decode([(text % TIME).encode()], decoder)
    assert reason in refusals[0][2]
    assert refusals[0][1] == (0,)


def test_several_bad_ticks_make_one_refusal_with_a_count(decoder):
    value = good_batch({"price": 0.0}, {}, {"price": -1.0}, {"symbol": ""})
    _, refusals, _ = decode([value], decoder)
    assert refusals == [
        (
            0,
            (0, 2, 3),
            "tick 0: price is 0, expected a finite number above 0 (and 2 more ticks refused)",
        )
    ]


@pytest.mark.parametrize("encode", ENCODERS)
def test_a_tick_far_ahead_of_its_record_is_refused(decoder, encode):
    hour = 3600 * 10**9
    value = encode(["A", "B"], [TIME + hour, TIME + hour + 1], [1.0, 1.0])
    stamps = np.array([TIME // 10**6], np.int64)
    rows, refusals, _ = decode([value], decoder, timestamps_ms=stamps)
    assert [row[0] for row in rows] == ["A"]
    assert "ahead of the record's timestamp" in refusals[0][2]
    assert decode([value], decoder, timestamps_ms=np.array([-1]))[1] == []


@pytest.mark.parametrize("encode", ENCODERS)
def test_symbols_beyond_the_limit_are_refused(decoder, encode):
    value = encode(["A", "B", "C", "A"], [TIME] * 4, [1.0] * 4)
    rows, refusals, names = decode([value], decoder, max_symbols=2)
    assert [row[0] for row in rows] == ["A", "B", "A"]
    assert names == ["A", "B"]
    assert "one more than the 2 symbols allowed" in refusals[0][2]


def test_null_in_a_required_arrow_column_is_a_missing_field(decoder):
    for name, values in (
        ("symbol", ["A", None]),
        ("event_time_ns", [TIME, None]),
        ("price", [1.0, None]),
    ):
        _, refusals, _ = decode([arrow(**{name: values})], decoder)
        assert refusals == [(0, (1,), f"tick 1: {name} is missing")]


@pytest.mark.parametrize(
    ("header", "value", "reason"),
    [
        ("text/csv", good_json(), "content-type is 'text/csv', expected"),
        ("application/x-protobuf", good_json(), "not a protobuf TickBatch"),
        ("application/json", good_batch(), "malformed JSON"),
        ("application/vnd.apache.arrow.stream", good_json(), "broken Arrow stream"),
    ],
)
def test_a_content_type_header_decides(decoder, header, value, reason):
    _, refusals, _ = decode([value], decoder, content_types=[header])
    assert reason in refusals[0][2]


def test_a_content_type_may_carry_parameters(decoder):
    header = "Application/JSON; charset=utf-8"
    assert decode([good_json()], decoder, content_types=[header])[1] == []


def test_a_flood_of_ordinary_and_broken_messages_keeps_its_order(decoder):
    values = [b"garbage" if k % 3 == 1 else good_json(f"S{k % 50}") for k in range(3000)]
    rows, refusals, _ = decode(values, decoder)
    assert [row[9] for row in rows] == [k for k in range(3000) if k % 3 != 1]
    assert [refusal[0] for refusal in refusals] == list(range(1, 3000, 3))


numbers = st.one_of(st.floats(), st.sampled_from([0.0, -0.0, 5e-324, float("nan"), float("inf")]))


@settings(max_examples=300)
@given(
    values=st.tuples(*[numbers] * 6),
    time=st.integers(-(2**63), 2**63 - 1) | st.sampled_from([10**17 - 1, 10**17, 2**63 - 1]),
    sequence=st.integers(-3, 2**63 - 1),
    latest=st.sampled_from([TIME, MAX_EVENT_TIME_NS]),
)
def test_compiled_rules_are_the_rules_in_words(values, time, sequence, latest):
    price, size, bid, ask, volume, amount = values
    floats = np.array(values).reshape(6, 1)
    longs = np.array([[time], [sequence]], np.int64)
    words = tick_problem("A", time, price, size, bid, ask, sequence, volume, amount, latest=latest)
    assert row_ok(floats, longs, 0, latest) == (words is None)
