"""Writes feature blocks: on the hot path, so nothing here costs more per row than a copy."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import orjson
from numpy.typing import NDArray

from schemas.features.blocks import EVENT_TIME_NS, PRICE, SYMBOL, block_schema
from schemas.features.ipc import END_OF_STREAM, Bytes, split_stream
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


@compiled
def _count_missing(values: NDArray[np.float64], counts: NDArray[np.int64]) -> None:
    """Counts the NaNs of each row of `values`, float64[features, n], into `counts`."""
    for k in range(values.shape[0]):
        count = 0
        for i in range(values.shape[1]):
            count += 1 if np.isnan(values[k, i]) else 0
        counts[k] = count


@compiled
def _fill_features(
    values: NDArray[np.float64],
    missing: NDArray[np.int64],
    block: Bytes,
    numbers: NDArray[Any],
    places: NDArray[np.int64],
) -> None:
    """Writes the feature columns, and a bit for every value of those with NaNs.

    Args:
        values: float64[features, n].
        missing: int64[features], NaNs of each.
        block: The block.
        numbers: The same memory as float64 or float32.
        places: Where in the block validity and data of each column go, int64[2 * features].
    """
    width = len(block) // len(numbers)
    for k in range(values.shape[0]):
        first = places[2 * k + 1] // width
        for i in range(values.shape[1]):
            numbers[first + i] = values[k, i]
        if missing[k] > 0:
            bits = places[2 * k]
            for i in range((values.shape[1] + 7) >> 3):
                block[bits + i] = 0
            for i in range(values.shape[1]):
                if not np.isnan(values[k, i]):
                    block[bits + (i >> 3)] |= np.uint8(1 << (i & 7))


def _put(block: Bytes, place: int, values: NDArray[Any]) -> None:
    block[place : place + values.nbytes] = np.ascontiguousarray(values).view(np.uint8)


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
        self._head, self._dictionary_template, self._template = split_stream(self.schema)
        self._block: Bytes = np.zeros(4096, np.uint8)
        self._missing: NDArray[np.int64] = np.zeros(len(columns), np.int64)
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
        values: Sequence[NDArray[np.float64]] | NDArray[np.float64],
    ) -> bytes:
        """Returns one Arrow IPC stream of one record batch; the dictionary is local to it.

        Args:
            codes: int32[n], indices into `names`.
            names: All symbols by code.
            event_time: int64[n], nanoseconds since 1970-01-01 UTC.
            price: float64[n].
            values: float64[features, n], or one float64[n] a feature; NaN becomes null.
        """
        n, width = len(codes), self._dtype.itemsize
        columns = np.asarray(values, np.float64).reshape(len(self.columns), n)
        local, symbols = self._dictionary(codes, names)
        text = [symbol.encode() for symbol in symbols]
        ends = np.zeros(len(text) + 1, np.int32)
        np.cumsum(list(map(len, text)), out=ends[1:])
        names_head, names_size = self._dictionary_template.fill(
            len(text), [0], [0, ends.nbytes, int(ends[-1])]
        )
        _count_missing(columns, self._missing)
        missing = self._missing.tolist()
        bitmap = (n + 7) // 8
        sizes = [0, 4 * n, 0, 8 * n, 0, 8 * n]
        for count in missing:
            sizes += [bitmap if count else 0, width * n]
        head, size = self._template.fill(n, [0, 0, 0, *missing], sizes)
        names_body = len(self._head) + len(names_head)
        body = names_body + names_size + len(head)
        block = self._room(body + size + len(END_OF_STREAM))
        block[: len(self._head)] = self._head
        block[len(self._head) : names_body] = names_head
        block[body - len(head) : body] = head
        block[body + size :] = END_OF_STREAM
        places = names_body + self._dictionary_template.offsets
        _put(block, places[1], ends)
        _put(block, places[2], np.frombuffer(b"".join(text), np.uint8))
        places = body + self._template.offsets
        _put(block, places[1], local)
        _put(block, places[3], event_time)
        _put(block, places[5], price)
        _fill_features(columns, self._missing, block, block.view(self._dtype), places[6:])
        return block.tobytes()

    def encode_json_rows(
        self,
        codes: NDArray[np.int32],
        names: Sequence[str],
        event_time: NDArray[np.int64],
        price: NDArray[np.float64],
        values: Sequence[NDArray[np.float64]] | NDArray[np.float64],
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

    def _room(self, size: int) -> Bytes:
        """Returns memory for a block; the same each time, since fresh pages cost more than it."""
        if size > len(self._block):
            self._block = np.zeros(max(size, 2 * len(self._block)), np.uint8)
        return self._block[:size]

    def _dictionary(
        self, codes: NDArray[np.int32], names: Sequence[str]
    ) -> tuple[NDArray[np.int32], list[str]]:
        if len(names) > len(self._local_of):
            self._local_of = np.full(2 * len(names), _EMPTY, np.int32)
        local = np.empty(len(codes), np.int32)
        distinct = np.empty(len(codes), np.int32)
        count = _local_codes(codes, self._local_of, local, distinct)
        return local, [names[code] for code in distinct[:count].tolist()]
