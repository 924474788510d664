import subprocess
import sys

import numpy as np
import orjson
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import InvalidInputError
from schemas.features import (
    MAX_BLOCK_BYTES,
    FeatureBlockWriter,
    decode_block,
    decode_json_rows,
    rows_per_block,
)

NAMES = [f"SYMBOL-{i:04d}-{'X' * 19}" for i in range(3000)]
TIME = 1_700_000_000_000_000_000


def make(rows, columns, seed=0, symbols=3000):
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, symbols, rows).astype(np.int32)
    values = [rng.random(rows) for _ in columns]
    for column in values:
        column[rng.random(rows) < 0.3] = np.nan
    return codes, NAMES, np.arange(rows) + TIME, rng.random(rows) + 1, values


@settings(max_examples=60)
@given(rows=st.integers(0, 40), width=st.integers(0, 5), seed=st.integers(0, 99))
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_block_gives_back_its_rows_with_nan_as_null(dtype, rows, width, seed):
    columns = tuple(f"f{i}" for i in range(width))
    codes, names, time, price, values = make(rows, columns, seed)
    batch = decode_block(
        FeatureBlockWriter(columns, dtype).encode(codes, names, time, price, values)
    )
    batch.validate(full=True)
    assert batch.schema.names == ["symbol", "event_time", "price", *columns]
    assert batch.column(0).to_pylist() == [names[code] for code in codes]
    assert batch.schema.field("event_time").type == pa.timestamp("ns", "UTC")
    assert batch.column(1).cast(pa.int64()).to_pylist() == time.tolist()
    assert batch.column(2).to_pylist() == price.tolist()
    for k, column in enumerate(values):
        expected = [None if np.isnan(x) else x for x in column.astype(dtype).tolist()]
        assert batch.column(3 + k).to_pylist() == expected


def test_the_dictionary_is_local_to_the_block():
    writer = FeatureBlockWriter(("f",))
    for code in (7, 5):
        batch = decode_block(
            writer.encode(
                np.array([code, code], np.int32), NAMES, np.array([1, 2]), np.ones(2), [np.ones(2)]
            )
        )
        assert batch.column(0).dictionary.to_pylist() == [NAMES[code]]


def test_slices_of_larger_arrays_are_written_as_they_are():
    codes, names, time, price, values = make(100, ("f",))
    cut = slice(10, 30)
    batch = decode_block(
        FeatureBlockWriter(("f",)).encode(
            codes[cut], names, time[cut], price[cut], [values[0][cut]]
        )
    )
    assert batch.column(2).to_pylist() == price[cut].tolist()


@pytest.mark.parametrize("width", [0, 1, 11, 200])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_block_stays_below_its_size_limit_even_if_all_symbols_differ(dtype, width):
    columns = tuple(f"feature_{i}" for i in range(width))
    rows = rows_per_block(columns, dtype)
    names = [f"{i:032d}" for i in range(rows)]
    _, _, time, price, values = make(rows, columns)
    block = FeatureBlockWriter(columns, dtype).encode(
        np.arange(rows, dtype=np.int32), names, time, price, values
    )
    assert MAX_BLOCK_BYTES * 0.6 < len(block) <= MAX_BLOCK_BYTES
    rows = rows_per_block(columns, dtype, "json")
    extreme = np.full(rows, -2.2250738585072014e-308)
    text = FeatureBlockWriter(columns).encode_json_rows(
        np.arange(rows, dtype=np.int32), [f"{i:032d}" for i in range(rows)],
        np.full(rows, 2**63 - 1), extreme, [extreme] * width,
    )  # fmt: skip
    assert len(text) <= MAX_BLOCK_BYTES


def test_json_rows_say_the_same():
    codes, names, time, price, values = make(20, ("a", "b"))
    writer = FeatureBlockWriter(("a", "b"))
    rows = decode_json_rows(writer.encode_json_rows(codes, names, time, price, values))
    batch = decode_block(writer.encode(codes, names, time, price, values))
    for row, expected in zip(rows, batch.to_pylist(), strict=True):
        assert row["event_time_ns"] == expected["event_time"].value
        del row["event_time_ns"], expected["event_time"]
        assert row == expected


@given(st.binary(max_size=60))
def test_other_bytes_are_refused_in_words(value):
    with pytest.raises(InvalidInputError, match="expected a feature block"):
        decode_block(value)
    try:
        rows = orjson.loads(value)
    except orjson.JSONDecodeError:
        rows = None
    if not isinstance(rows, list):
        with pytest.raises(InvalidInputError, match="expected"):
            decode_json_rows(value)


def test_the_client_half_needs_neither_numba_nor_numpy():
    code = (
        "import sys; sys.modules['numba'] = sys.modules['numpy'] = sys.modules['pandas'] = None\n"
        "from schemas.ticks import encode\n"
        "from schemas.features import decode_block\n"
        "import schemas.dead_letters, schemas.topics, schemas.partitioner, schemas.symbols\n"
        "import pyarrow as pa\n"
        "columns = (['A', 'B'], [10**18] * 2, [1.0, 2.0], [1.0, None])\n"
        "assert encode.encode_batch(*columns) and encode.encode_json(*columns)\n"
        "batch = decode_block(encode.encode_arrow(*columns))\n"
        "assert batch.column(3).to_pylist() == [1.0, None]\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
