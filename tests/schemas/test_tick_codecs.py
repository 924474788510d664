"""Every encoding gives back what was sent, and both decoding paths agree on any bytes."""

import json
import random
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tick_samples import (
    ENCODERS,
    TIME,
    decode,
    good_batch,
    good_json,
    tick_columns,
)

from mystocks.v1 import market_pb2
from schemas.ticks.encode import encode_arrow, encode_batch, encode_json

FAST = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


def expected_rows(columns, message=0):
    size = len(columns["symbols"])

    def column(name, absent):
        values = columns.get(name) or [None] * size
        return [absent if value is None else value for value in values]

    return list(
        zip(
            columns["symbols"],
            columns["event_times_ns"],
            columns["prices"],
            column("sizes", 0.0),
            column("bids", None),
            column("asks", None),
            column("volumes", None),
            column("amounts", None),
            column("sequences", -1),
            [message] * size,
            range(size),
            strict=True,
        )
    )


@FAST
@given(columns=tick_columns())
@pytest.mark.parametrize("encode", ENCODERS)
def test_round_trip_gives_back_every_field(decoder, encode, columns):
    rows, refusals, names = decode([encode(**columns)], decoder)
    assert refusals == []
    assert rows == expected_rows(columns)
    assert names == list(dict.fromkeys(columns["symbols"]))


@FAST
@given(batches=st.lists(st.tuples(tick_columns(), st.sampled_from(ENCODERS)), max_size=8))
def test_encodings_mix_freely_in_one_call(decoder, batches):
    values = [encode(**columns) for columns, encode in batches]
    rows, refusals, _ = decode(values, decoder)
    assert refusals == []
    assert rows == [
        row for k, (columns, _) in enumerate(batches) for row in expected_rows(columns, k)
    ]


@FAST
@given(columns=tick_columns())
def test_own_protobuf_encoder_writes_what_the_library_writes(columns):
    size = len(columns["symbols"])
    names = {
        "symbols": "symbol",
        "event_times_ns": "event_time_ns",
        "prices": "price",
        "sizes": "size",
        "bids": "bid",
        "asks": "ask",
        "sequences": "sequence",
        "volumes": "volume",
        "amounts": "amount",
    }
    ticks = [
        market_pb2.Tick(
            **{names[name]: values[i] for name, values in columns.items() if values[i] is not None}
        )
        for i in range(size)
    ]
    assert encode_batch(**columns) == market_pb2.TickBatch(ticks=ticks).SerializeToString()


# --- any bytes ---------------------------------------------------------------------------------

tokens = st.sampled_from(
    [
        b"{", b"}", b"[", b"]", b",", b":", b" ", b"\n", b'"', b"\\", b"\xef\xbb\xbf", b"null",
        b"true", b"NaN", b"-", b"0", b"1", b"1.5", b"1e3", b"-0", b"00", b"1.", b".5",
        b'"symbol"', b'"event_time_ns"', b'"price"', b'"size"', b'"bid"', b'"sequence"', b'"x"',
        b'"AAPL"', b"1700000000000000000", b'"1700000000000000000"', b"9223372036854775808",
        b'"symbol":"AAPL"', b'"event_time_ns":1700000000000000000', b'"price":1.5', b'"x":[1]',
        b'{"symbol":"AAPL","event_time_ns":1700000000000000000,"price":1.5', b"\xc3\xa9", b"\xff",
    ]
)  # fmt: skip
json_like = st.lists(tokens, max_size=24).map(b"".join)


@st.composite
def mutated(draw):
    columns = draw(tick_columns(max_size=3))
    value = bytearray(draw(st.sampled_from(ENCODERS))(**columns))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(value) - 1)) if value else 0
        action = draw(st.sampled_from(["flip", "cut", "insert", "double"]))
        if action == "flip" and value:
            value[at] ^= 1 << draw(st.integers(0, 7))
        elif action == "cut":
            del value[at : at + draw(st.integers(1, 9))]
        elif action == "insert":
            value[at:at] = draw(st.binary(min_size=1, max_size=9))
        else:
            value += value[: draw(st.integers(0, 60))]
    return bytes(value)


fields = st.sampled_from(
    [
        b"\x0a\x04AAPL", b"\x0a\x00", b"\x0a\x02\xff\xfe", b"\x11" + TIME.to_bytes(8, "little"),
        b"\x19\x00\x00\x00\x00\x00\x00\xf8\x3f", b"\x21\x00\x00\x00\x00\x00\x00\x00\x80",
        b"\x29\x00\x00\x00\x00\x00\x00\xf8\x7f", b"\x38\x05", b"\x38" + b"\xff" * 9 + b"\x01",
        b"\x38" + b"\xff" * 9 + b"\x02", b"\x3d\x01\x02\x03\x04", b"\x50\x01", b"\x13\x14", b"\x00",
        b"\x0b", b"\x41\x00\x00\x00\x00\x00\x00\xf8\x3f", b"\x21\x00\x00", b"\x8a\x00\x04MSFT",
    ]
)  # fmt: skip


@st.composite
def protobuf_like(draw):
    out = b""
    for _ in range(draw(st.integers(1, 3))):
        body = b"".join(draw(st.lists(fields, max_size=6)))
        out += b"\x0a" + bytes([draw(st.sampled_from([len(body), len(body), 0, 5]))]) + body
    return out + draw(st.sampled_from([b"", b"", b"\x12\x01a", b"\x0a"]))


any_message = st.one_of(
    st.binary(max_size=80), json_like, mutated(), protobuf_like(), st.none(),
    st.binary(max_size=40).map(lambda b: b"\x0a" + b),
    st.binary(max_size=40).map(lambda b: b"\xff\xff\xff\xff" + b),
)  # fmt: skip


@settings(FAST, max_examples=600)
@given(
    messages=st.lists(any_message, min_size=1, max_size=5),
    header=st.sampled_from([None, "j", "p", "a"]),
)
@example(
    messages=[b'{"symbol"', b'":"A","event_time_ns":1700000000000000000,"price":1}'], header=None
)
@example(
    messages=[b'{"symbol":"A","event_time_ns":170000000000000000', b'0,"price":1}'], header=None
)
@example(messages=[b"\x0a\x17\x0a\x04AAPL", good_batch()], header=None)
def test_any_bytes_mean_the_same_on_both_paths_and_spare_the_neighbours(decoder, messages, header):
    kinds = {
        "j": "application/json",
        "p": "application/x-protobuf",
        "a": "application/vnd.apache.arrow.stream",
    }
    values, types = [good_json("FIRST")], [None]
    for message in messages:
        values += [message, good_json("A")]
        types += [kinds.get(header), None]
    values.append(good_batch())
    types.append(None)
    stamps = np.full(len(values), -1, np.int64)
    fast = decode(values, decoder, content_types=types, timestamps_ms=stamps)
    slow = decode(values, decoder, slow=True, content_types=types, timestamps_ms=stamps)
    assert fast == slow
    rows, refusals, _ = fast
    good = [0, *range(2, len(values), 2), len(values) - 1]
    assert {row[9] for row in rows} >= set(good)
    assert not {refusal[0] for refusal in refusals} & set(good)


@FAST
@given(messages=st.lists(any_message, min_size=1, max_size=6))
def test_symbols_stay_within_their_limit_on_both_paths(decoder, messages):
    fast = decode(messages, decoder, max_symbols=2)
    assert fast == decode(messages, decoder, slow=True, max_symbols=2)
    assert len(fast[2]) <= 2


def test_json_numbers_are_rounded_exactly(decoder):
    random.seed(7)
    texts = []
    for _ in range(30_000):
        digits = random.randint(1, 18)
        mantissa = str(random.randrange(1, 10**digits))
        places = random.randint(0, 22)
        mantissa = mantissa.rjust(places + 1, "0")
        texts.append(f"{mantissa[:-places]}.{mantissa[-places:]}" if places else mantissa)
    texts += [repr(random.uniform(0, 10 ** random.randint(0, 9))) for _ in range(30_000)]
    # Decimals half way between two doubles, and just beside.
    for _ in range(5_000):
        low = random.uniform(1, 2) * 2.0 ** random.randint(-10, 30)
        middle = str((Decimal(low) + Decimal(np.nextafter(low, np.inf))) / 2)
        texts += [middle, middle[:19], middle[:18] + "1", middle[:18]]
    texts = [text for text in texts if float(text) > 0]
    values = [
        b'{"symbol":"A","event_time_ns":%d,"price":%s}' % (TIME, text.encode()) for text in texts
    ]
    rows, refusals, _ = decode(values, decoder)
    assert refusals == []
    assert [row[2] for row in rows] == [float(text) for text in texts]


# --- what the contract allows ------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        b'{"symbol":"A","event_time_ns":1700000000000000000,"price":1.5}',
        b'{"price":1.5,"event_time_ns":"1700000000000000000","symbol":"A"}',
        b'\xef\xbb\xbf{"symbol":"A","event_time_ns":1700000000000000000,"price":1.5}',
        b' \t\r\n{ "symbol" : "A" , "event_time_ns" : 1700000000000000000 , "price" : 1.5 } \n',
        b'\n{"symbol":"A","event_time_ns":1700000000000000000,"price":1.5}',
        b'\n [{"symbol":"A","event_time_ns":1700000000000000000,"price":1.5}]',
        b'[{"symbol":"A","event_time_ns":1700000000000000000,"price":15e-1}]',
        b'{"symbol":"\\u0041","event_time_ns":1700000000000000000,"price":1.5}',
        b'{"symbol":"B","event_time_ns":1,"price":-1,"symbol":"A",'
        b'"event_time_ns":1700000000000000000,"price":1.5}',
        b'{"x":{"y":[1,"}"]},"symbol":"A","event_time_ns":1700000000000000000,"price":1.5,"z":null}',
        b'{"size":null,"bid":null,"symbol":"A","event_time_ns":1700000000000000000,"price":1.5}',
    ],
)
def test_json_in_any_legal_shape_is_the_same_tick(decoder, text):
    rows, refusals, _ = decode([text], decoder)
    assert refusals == []
    assert rows == [("A", TIME, 1.5, 0.0, None, None, None, None, -1, 0, 0)]


def test_protobuf_fields_come_in_any_order_and_unknown_ones_are_skipped(decoder):
    tick = market_pb2.Tick(symbol="A", event_time_ns=TIME, price=1.5, sequence=7)
    known = tick.SerializeToString()
    symbol, rest = known[:3], known[3:]
    shuffled = b"\x7a\x03abc" + rest + b"\x19" + known[13:21] + symbol + b"\xf8\x01\x05"
    values = [b"\x0a" + bytes([len(body)]) + body for body in (known, rest + symbol, shuffled)]
    values.append(values[0] + b"\x12\x01x")
    rows, refusals, _ = decode(values, decoder)
    assert refusals == []
    assert [row[:9] for row in rows] == [("A", TIME, 1.5, 0.0, None, None, None, None, 7)] * 4


def test_concatenated_batches_are_one_batch(decoder):
    rows, refusals, _ = decode([good_batch({"symbol": "A"}) + good_batch({"symbol": "B"})], decoder)
    assert refusals == []
    assert [(row[0], row[10]) for row in rows] == [("A", 0), ("B", 1)]


def test_messages_without_ticks_are_accepted(decoder):
    empty = encode_arrow([], [], [])
    assert decode([b"[]", empty, good_json()], decoder)[1] == []


def arrow(columns, **options):
    batch = pa.record_batch(columns)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_batch(batch)
        writer.write_batch(batch)
    return sink.getvalue().to_pybytes()


SYMBOLS = pa.array(["A", "B", "A"])
TIMES = pa.array([TIME, TIME + 1, TIME + 2])
PRICES = pa.array([1.5, 2.5, 3.5])
EXPECTED = [("A", TIME, 1.5), ("B", TIME + 1, 2.5), ("A", TIME + 2, 3.5)] * 2


@pytest.mark.parametrize("compression", [None, "lz4", "zstd"])
@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"symbol": SYMBOLS.dictionary_encode()},
        {"symbol": SYMBOLS.cast(pa.large_string())},
        {"symbol": SYMBOLS.cast(pa.string_view())},
        {"symbol": SYMBOLS.dictionary_encode().cast(pa.dictionary(pa.int8(), pa.large_string()))},
        {"symbol": SYMBOLS.dictionary_encode().cast(pa.dictionary(pa.uint16(), pa.string()))},
        {"event_time_ns": TIMES.cast(pa.timestamp("ns", "UTC"))},
        {"event_time_ns": TIMES.cast(pa.uint64())},
        {"price": PRICES.cast(pa.float32())},
        {"price": PRICES.cast(pa.float16())},
        {"price": pa.array([Decimal("1.5"), Decimal("2.5"), Decimal("3.5")])},
        {"size": pa.array([0, 0, 0], pa.int32())},
        {"size": pa.nulls(3)},
        {"bid": pa.array([None, None, None], pa.float64()), "sequence": pa.nulls(3)},
        {"extra": pa.array([{"a": 1}, None, {"a": 2}])},
    ],
    ids=lambda changed: ",".join(f"{k}:{v.type}" for k, v in changed.items()) or "plain",
)
def test_arrow_columns_of_any_fitting_type_give_the_same_ticks(decoder, changed, compression):
    columns = {"symbol": SYMBOLS, "event_time_ns": TIMES, "price": PRICES} | changed
    value = arrow(columns, compression=compression)
    # Twice: what a decoder remembers of a schema must not change the result.
    rows, refusals, _ = decode([value, value], decoder)
    assert refusals == []
    assert [row[:3] for row in rows] == EXPECTED * 2
    assert {row[3:9] for row in rows} == {(0.0, None, None, None, None, -1)}
    assert [row[10] for row in rows] == [*range(6), *range(6)]


def test_arrow_times_in_coarser_units_are_converted(decoder):
    times = pa.array([t // 1000 for t in TIMES.to_pylist()]).cast(pa.timestamp("us"))
    value = arrow({"symbol": SYMBOLS, "event_time_ns": times, "price": PRICES})
    assert [row[1] for row in decode([value], decoder)[0]] == [TIME] * 6


def test_arrow_slices_and_delta_dictionaries(decoder):
    first = pa.record_batch(
        {
            "symbol": pa.array(["A", "B"]).dictionary_encode(),
            "event_time_ns": TIMES[:2],
            "price": PRICES[:2],
        }
    )
    second = pa.record_batch({"symbol": pa.array(["A", "B", "C"]).dictionary_encode(),
                              "event_time_ns": TIMES, "price": PRICES})  # fmt: skip
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(emit_dictionary_deltas=True)
    with pa.ipc.new_stream(sink, first.schema, options=options) as writer:
        writer.write_batch(first)
        writer.write_batch(second.slice(1, 2))
    rows, refusals, _ = decode([sink.getvalue().to_pybytes()], decoder)
    assert refusals == []
    assert [row[0] for row in rows] == ["A", "B", "B", "C"]


def test_only_the_rows_asked_for_are_taken(decoder):
    from schemas.ticks import SymbolTable

    columns = {"symbols": ["A", "B", "", "D"], "event_times_ns": [TIME] * 4, "prices": [1.0] * 4}
    values = [encode(**columns) for encode in (encode_json, encode_batch, encode_arrow)]
    table = SymbolTable(10)
    only = {k: frozenset({1, 3}) for k in range(3)}
    found, refusals = decoder.decode(values, None, None, table, only)
    assert refusals == []
    assert found.message.tolist() == [0, 0, 1, 1, 2, 2]
    assert found.row.tolist() == [1, 3] * 3
    assert table.names == ["B", "D"]


def test_a_table_grows_to_many_symbols_in_one_call(decoder):
    names = [f"S{i}" for i in range(30_000)]
    columns = {"symbols": names, "event_times_ns": [TIME] * 30_000, "prices": [1.0] * 30_000}
    for encode in ENCODERS:
        rows, refusals, table = decode([encode(**columns)], decoder, max_symbols=40_000)
        assert refusals == []
        assert table == names
        assert len(rows) == 30_000


def test_json_arrays_written_by_the_standard_library(decoder):
    ticks = [{"symbol": f"S{i}", "event_time_ns": TIME + i, "price": i + 0.25} for i in range(50)]
    rows, refusals, _ = decode([json.dumps(ticks, indent=2).encode()], decoder)
    assert refusals == []
    assert [row[2] for row in rows] == [i + 0.25 for i in range(50)]
