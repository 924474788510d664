"""Bars: their columns, their encoding as record values, and their intervals."""

from schemas.bars.blocks import (
    bars_schema,
    decode_bars,
    encode_bars,
    rows_per_bars_block,
)
from schemas.bars.columns import FLOAT_COLUMNS, NO_TRADES, BarColumns
from schemas.bars.intervals import Interval

__all__ = [
    "FLOAT_COLUMNS",
    "NO_TRADES",
    "BarColumns",
    "Interval",
    "bars_schema",
    "decode_bars",
    "encode_bars",
    "rows_per_bars_block",
]
