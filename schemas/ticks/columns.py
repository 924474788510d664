"""Columns of decoded ticks, the buffers behind them, and refusals."""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

ByteArray: TypeAlias = NDArray[np.uint8]
BoolArray: TypeAlias = NDArray[np.bool_]
UInt64Array: TypeAlias = NDArray[np.uint64]
# Templates, masks and places of `schemas.ticks.arrow_shapes.ArrowShapes`.
ShapeArrays: TypeAlias = tuple[ByteArray, ByteArray, NDArray[np.int64]]
Int32Array: TypeAlias = NDArray[np.int32]
Int64Array: TypeAlias = NDArray[np.int64]
Float64Array: TypeAlias = NDArray[np.float64]

# Floats, longs and ints of `ColumnBuffers`.
ColumnArrays: TypeAlias = tuple[Float64Array, Int64Array, Int32Array]
# See `schemas.ticks.symbol_table.SymbolTable.arrays`.
TableArrays: TypeAlias = tuple[UInt64Array, Int32Array, Int64Array, BoolArray]

# Rows of the buffers below.
PRICE, SIZE, BID, ASK, VOLUME, AMOUNT = range(6)
EVENT_TIME, SEQUENCE = range(2)
CODE, MESSAGE, ROW = range(3)


@dataclass(frozen=True)
class TickColumns:
    """Ticks of one call, in message order and then by position in the message.

    All arrays are one-dimensional, contiguous and of the same length. They are views of the
    decoder's buffers, valid until its next call.

    Attributes:
        code: Index of the symbol in `SymbolTable.names`, int32.
        event_time: Nanoseconds since 1970-01-01 UTC, int64.
        price: float64, finite and above 0.
        size: float64, 0 where absent.
        bid: float64, NaN where absent.
        ask: float64, NaN where absent.
        volume: Of the session so far, float64, NaN where absent.
        amount: Of the session so far, float64, NaN where absent.
        sequence: The feed's number, int64, -1 where absent.
        message: Index of the message in the call, int32.
        row: Position of the tick in its message, refused ticks counted, int32.
    """

    code: Int32Array
    event_time: Int64Array
    price: Float64Array
    size: Float64Array
    bid: Float64Array
    ask: Float64Array
    volume: Float64Array
    amount: Float64Array
    sequence: Int64Array
    message: Int32Array
    row: Int32Array

    def __len__(self) -> int:
        return len(self.code)


class ColumnBuffers:
    """Growing storage of `TickColumns`.

    Attributes:
        floats: float64[6, capacity]: price, size, bid, ask, volume, amount.
        longs: int64[2, capacity]: event time, sequence.
        ints: int32[3, capacity]: code, message, row.
    """

    def __init__(self) -> None:
        self._allocate(1024)

    def _allocate(self, capacity: int) -> None:
        self.floats: Float64Array = np.empty((6, capacity), np.float64)
        self.longs: Int64Array = np.empty((2, capacity), np.int64)
        self.ints: Int32Array = np.empty((3, capacity), np.int32)

    @property
    def capacity(self) -> int:
        """How many rows fit."""
        return int(self.floats.shape[1])

    @property
    def arrays(self) -> ColumnArrays:
        """What compiled code takes; ask again after `reserve`."""
        return self.floats, self.longs, self.ints

    def reserve(self, capacity: int, used: int) -> None:
        """Makes room for `capacity` rows and keeps the first `used`."""
        if capacity <= self.capacity:
            return
        old = (self.floats, self.longs, self.ints)
        self._allocate(max(capacity, self.capacity * 3 // 2))
        self.floats[:, :used] = old[0][:, :used]
        self.longs[:, :used] = old[1][:, :used]
        self.ints[:, :used] = old[2][:, :used]

    def columns(self, length: int) -> TickColumns:
        """Returns views of the first `length` rows."""
        floats, longs, ints = self.floats, self.longs, self.ints
        return TickColumns(
            code=ints[CODE, :length],
            event_time=longs[EVENT_TIME, :length],
            price=floats[PRICE, :length],
            size=floats[SIZE, :length],
            bid=floats[BID, :length],
            ask=floats[ASK, :length],
            volume=floats[VOLUME, :length],
            amount=floats[AMOUNT, :length],
            sequence=longs[SEQUENCE, :length],
            message=ints[MESSAGE, :length],
            row=ints[ROW, :length],
        )
