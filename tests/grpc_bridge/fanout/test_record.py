"""From a record's value to columns."""

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest

from grpc_bridge.fanout.record import decode_columns
from schemas.errors import InvalidInputError
from schemas.features import FeatureBlockWriter

_ROWS, _NAMES = 21, ("a", "b", "c")


def _values() -> np.ndarray:
    values = np.arange(3.0 * _ROWS).reshape(3, _ROWS)
    values[0, :9] = values[2, -1] = np.nan
    return values


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("form", ["arrow", "json"])
def test_a_block_of_the_role_is_read_back(dtype, form):
    writer = FeatureBlockWriter(_NAMES, dtype)
    codes = (np.arange(_ROWS) % 2).astype(np.int32)
    times, prices = np.arange(_ROWS) * 10, np.arange(_ROWS) / 2
    encode = writer.encode if form == "arrow" else writer.encode_json_rows
    value = encode(codes, ["X", "Y"], times, prices, list(_values()))
    columns = decode_columns(value)
    assert (columns.names, columns.symbols) == (_NAMES, ["X", "Y"])
    assert np.array_equal(columns.codes, codes)
    assert np.array_equal(columns.times, times)
    assert np.array_equal(columns.prices, prices)
    assert np.array_equal(columns.values, _values(), equal_nan=True)
    assert {column.dtype for column in columns.values} == {np.dtype(np.float64)}


def _stream(**columns: pa.Array) -> bytes:
    table = pa.table(columns)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        for batch in table.to_batches(max_chunksize=4):
            stream.write_batch(batch)
    return sink.getvalue().to_pybytes()


def test_a_block_of_another_writer_is_read_whatever_its_types_and_batches():
    features = pa.array([None, 1, 2, None, 4, 5], pa.int32())
    value = _stream(
        symbol=pa.array(["X", "Y"] * 3),
        event_time=pa.array(range(6), pa.timestamp("us", "UTC")),
        price=pa.array([1.0] * 6, pa.float32()),
        a=features,
    )
    columns = decode_columns(value)
    assert [columns.symbols[code] for code in columns.codes] == ["X", "Y"] * 3
    assert columns.times.tolist() == [i * 1000 for i in range(6)]
    nan = float("nan")
    assert np.array_equal(columns.values[0], [nan, 1, 2, nan, 4, 5], equal_nan=True)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"hello",
        b"[1, 2]",
        b'[{"symbol": "X"}]',
        _stream(symbol=pa.array(["X"]), price=pa.array([1.0])),
        _stream(
            symbol=pa.array(["X"]),
            event_time=pa.array([0], pa.timestamp("ns", "UTC")),
            price=pa.array(["one"]),
        ),
    ],
)
def test_what_is_no_block_is_refused(value):
    with pytest.raises(InvalidInputError):
        decode_columns(value)


def test_reading_a_block_does_not_wait_for_pandas():
    program = (
        "import sys, numpy as np\n"
        "from schemas.features import FeatureBlockWriter\n"
        "from grpc_bridge.fanout.record import decode_columns\n"
        "writer = FeatureBlockWriter(('a',))\n"
        "one = np.ones(1)\n"
        "value = writer.encode(np.zeros(1, np.int32), ['X'], np.ones(1, np.int64), one, [one])\n"
        "decode_columns(value)\n"
        "sys.exit('pandas' in sys.modules)\n"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
