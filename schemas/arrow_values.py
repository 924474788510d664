"""Arrow columns as NumPy arrays."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def column_values(column: Any, kind: Any, dtype: Any, absent: Any, name: str) -> NDArray[Any]:
    """Returns a column as an array: a read-only view where nothing has to change.

    From Arrow's buffers: its own way to NumPy imports pandas, which takes a second.

    Args:
        column: A `pyarrow.Array` of fixed-width values.
        kind: Arrow type that is wanted; other ones are cast.
        dtype: NumPy type of the same width.
        absent: Stands for nulls; None refuses them.
        name: Of the column, for the error.

    Raises:
        ValueError: The column has nulls, or cannot be cast (`pyarrow.ArrowInvalid`).
    """
    if column.type != kind:
        column = column.cast(kind)
    n, width = len(column), np.dtype(dtype).itemsize
    if n == 0:
        return np.empty(0, dtype)
    bits, data = column.buffers()
    values = np.frombuffer(data, dtype, n, column.offset * width)
    if column.null_count:
        if absent is None:
            raise ValueError(f"column {name} has nulls")
        flags = np.frombuffer(bits, np.uint8)
        valid = np.unpackbits(flags, count=column.offset + n, bitorder="little")[column.offset :]
        return np.where(valid.view(np.bool_), values, np.asarray(absent, dtype))
    return values
