"""Writes feature blocks: on the hot path, so nothing here costs more per row than a copy."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import orjson
import pyarrow as pa
from numpy.typing import NDArray

from schemas.features.blocks import EVENT_TIME_NS, PRICE, SYMBOL, block_schema
from schemas.ticks.columns import Int32Array
from schemas.ticks.compiled import Int, compiled

_EMPTY = -1


@compiled
def _local_codes(
    codes: Int32Array, local_of: Int32Array, local: Int32Array, distinct: Int32Array
) -> Int:
    """Numbers the symbols of a block in order of appearance.

    Args:
        codes: int32[n], global codes.
        local_of: int32[symbols], all -1; is put back before return.
        local: int32[n], out.
        distinct: int32[n], out: global code of each local one.

    Returns:
        How many distinct symbols there are.
    """
    count = 0
    for i in range(len(codes)):
        code = codes[i]
        found = local_of[code]
        if found < 0:
            found = count
            local_of[code] = count
            distinct[count] = code
            count += 1
        local[i] = found
    for k in range(count):
        local_of[distinct[k]] = -1
    return count


def _strings(values: Sequence[str]) -> Any:
    """Returns an Arrow string array; `pa.array` of a list would import pandas, where it is."""
    encoded = [value.encode() for value in values]
    ends = np.zeros(len(values) + 1, np.int32)
    np.cumsum(list(map(len, encoded)), out=ends[1:])
    buffers = [None, pa.py_buffer(ends), pa.py_buffer(b"".join(encoded))]
    return pa.Array.from_buffers(pa.string(), len(values), buffers)


class FeatureBlockWriter:
    """Encodes rows of one feature set. An instance serves one thread.

    Args:
        columns: Names of the features.
        dtype: Precision of the features as written; cast here, last of all.
    """

    def __init__(
        self, columns: tuple[str, ...], dtype: Literal["float64", "float32"] = "float64"
    ) -> None:
        self.columns = columns
        self.schema = block_schema(columns, dtype)
        self._dtype = np.dtype(dtype)
        self._feature_type = pa.float64() if dtype == "float64" else pa.float32()
        self._time_type = pa.timestamp("ns", "UTC")
        self._local_of: NDArray[np.int32] = np.full(1024, _EMPTY, np.int32)

    def warm_up(self) -> None:
        """Compiles and imports what the first block would otherwise wait for."""
        one = np.ones(1)
        values = [one] * len(self.columns)
        self.encode(np.zeros(1, np.int32), ["A"], np.ones(1, np.int64), one, values)
        if values:
            self.encode(
                np.zeros(1, np.int32), ["A"], np.ones(1, np.int64), one, [one * np.nan, *values[1:]]
            )

    def encode(
        self,
        codes: NDArray[np.int32],
        names: Sequence[str],
        event_time: NDArray[np.int64],
        price: NDArray[np.float64],
        values: Sequence[NDArray[np.float64]],
    ) -> bytes:
        """Returns one Arrow IPC stream of one record batch; the dictionary is local to it.

        Args:
            codes: int32[n], indices into `names`.
            names: All symbols by code.
            event_time: int64[n], nanoseconds since 1970-01-01 UTC.
            price: float64[n].
            values: One float64[n] a feature, contiguous; NaN becomes null.
        """
        n = len(codes)
        local, symbols = self._dictionary(codes, names)
        arrays = [
            pa.DictionaryArray.from_arrays(
                pa.Array.from_buffers(pa.int32(), n, [None, pa.py_buffer(local)]),
                _strings(symbols),
                safe=False,
            ),
            pa.Array.from_buffers(self._time_type, n, [None, pa.py_buffer(event_time)]),
            pa.Array.from_buffers(pa.float64(), n, [None, pa.py_buffer(price)]),
        ]
        arrays += [self._nullable(column, n) for column in values]
        batch = pa.RecordBatch.from_arrays(arrays, schema=self.schema)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, self.schema) as stream:
            stream.write_batch(batch)
        encoded: bytes = sink.getvalue().to_pybytes()
        return encoded

    def encode_json_rows(
        self,
        codes: NDArray[np.int32],
        names: Sequence[str],
        event_time: NDArray[np.int64],
        price: NDArray[np.float64],
        values: Sequence[NDArray[np.float64]],
    ) -> bytes:
        """Returns the same rows as a JSON array of objects; the time is `event_time_ns`.

        Args:
            codes: As for `encode`, and so on.
            names: All symbols by code.
            event_time: int64[n].
            price: float64[n].
            values: One float64[n] a feature; NaN becomes null.
        """
        keys = (SYMBOL, EVENT_TIME_NS, PRICE, *self.columns)
        features = [column.astype(self._dtype).tolist() for column in values]
        symbols = [names[code] for code in codes.tolist()]
        rows = zip(symbols, event_time.tolist(), price.tolist(), *features, strict=True)
        return orjson.dumps([dict(zip(keys, row, strict=True)) for row in rows])

    def _dictionary(
        self, codes: NDArray[np.int32], names: Sequence[str]
    ) -> tuple[NDArray[np.int32], list[str]]:
        if len(names) > len(self._local_of):
            self._local_of = np.full(2 * len(names), _EMPTY, np.int32)
        local = np.empty(len(codes), np.int32)
        distinct = np.empty(len(codes), np.int32)
        count = _local_codes(codes, self._local_of, local, distinct)
        return local, [names[code] for code in distinct[:count].tolist()]

    def _nullable(self, column: NDArray[np.float64], n: int) -> Any:
        nulls = np.isnan(column)
        count = int(np.count_nonzero(nulls))
        valid = None
        if count:
            valid = pa.py_buffer(np.packbits(~nulls, bitorder="little"))
        if self._dtype != np.float64:
            column = column.astype(self._dtype)
        return pa.Array.from_buffers(
            self._feature_type, n, [valid, pa.py_buffer(column)], null_count=count
        )
