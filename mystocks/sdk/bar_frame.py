"""Bars in columns: what a replay of bars yields."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from math import isnan
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from mystocks.sdk.arrow_frame import ArrowFrame
from mystocks.sdk.errors import BridgeError
from mystocks.v1.market_pb2 import BarBlock
from schemas.features import EVENT_TIME, SYMBOL

_PRICES = ("open", "high", "low", "close", "volume", "amount")
_COLUMNS = ("symbol_index", "start_time_ns", "end_time_ns", *_PRICES, "trades", "revision")
_TIME = pa.timestamp("ns", "UTC")
# What `BarBlock.trades` says where nobody counted them.
_NOT_COUNTED = -1


class BarRow(NamedTuple):
    """A bar, identified by symbol, end time and revision.

    Attributes:
        symbol: The symbol.
        start_time_ns: Start, included, nanoseconds since 1970 in UTC.
        end_time_ns: End, excluded, likewise; the bar's event time.
        open: Price of the first trade.
        high: Highest price.
        low: Lowest price.
        close: Price of the last trade.
        volume: Traded quantity.
        amount: Traded money; None where unknown.
        trades: Number of trades or ticks; None where unknown.
        revision: Of several revisions of a bar the highest counts.
    """

    symbol: str
    start_time_ns: int
    end_time_ns: int
    open: float
    high: float
    low: float
    close: float
    volume: float
    amount: float | None
    trades: int | None
    revision: int


class BarFrame(ArrowFrame):
    """Some bars of one interval, in columns.

    A frame has a length and can be iterated (`BarRow`). It cannot be changed. ``frame.to_arrow()``,
    ``to_pandas()`` and ``to_polars()`` give the columns of a record on `market.bars.<interval>`.

    Args:
        block: The message that holds the bars.

    Raises:
        BridgeError: The columns of the message do not fit together.
    """

    def __init__(self, block: BarBlock) -> None:
        length = len(block.symbol_index)
        if any(len(getattr(block, name)) != length for name in _COLUMNS) or (
            length and max(block.symbol_index) >= len(block.symbols)
        ):
            raise BridgeError(
                f"expected columns of {length} bars, was a block whose columns differ (interval "
                f"{block.interval}); bridge and client may be of different versions"
            )
        self._block = block

    @property
    def interval(self) -> str:
        """Length of the bars, for example ``1m``."""
        return self._block.interval

    def __len__(self) -> int:
        return len(self._block.symbol_index)

    def __iter__(self) -> Iterator[BarRow]:
        block = self._block
        columns = {name: getattr(block, name) for name in _COLUMNS}
        columns["symbol_index"] = [block.symbols[code] for code in block.symbol_index]
        columns["amount"] = [None if isnan(amount) else amount for amount in block.amount]
        columns["trades"] = [None if n == _NOT_COUNTED else n for n in block.trades]
        return map(BarRow._make, zip(*columns.values(), strict=True))

    def to_arrow(self) -> pa.Table:
        """Returns a pyarrow table; symbols are a dictionary of strings."""
        block = self._block
        index = pa.array(array("i", block.symbol_index), pa.int32())
        end_time = pa.array(array("q", block.end_time_ns), pa.int64()).cast(_TIME)
        trades = pa.array(array("q", block.trades), pa.int64())
        prices = {
            name: pa.array(array("d", getattr(block, name)), pa.float64()) for name in _PRICES
        }
        amount = prices["amount"]
        return pa.table(
            {
                SYMBOL: pa.DictionaryArray.from_arrays(index, pa.array(block.symbols, pa.utf8())),
                EVENT_TIME: end_time,
                "start_time": pa.array(array("q", block.start_time_ns), pa.int64()).cast(_TIME),
                "end_time": end_time,
                **prices,
                "amount": pc.if_else(pc.is_nan(amount), None, amount),
                "trades": pc.if_else(pc.equal(trades, _NOT_COUNTED), None, trades),
                "revision": pa.array(array("i", block.revision), pa.int32()),
            }
        )

    def __repr__(self) -> str:
        count = len(self)
        symbols = len(self._block.symbols)
        return (
            f"{count} bar{'' if count == 1 else 's'} of {self.interval}, "
            f"{symbols} symbol{'' if symbols == 1 else 's'}"
        )
